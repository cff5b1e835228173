"""Carries out what the fault script decides: on the clients, and on what the floor publishes."""

from __future__ import annotations

import logging
from itertools import cycle, islice
from typing import Any

from pipelines.events import Message, format_time_ns, reject_reason
from pipelines.exchange.faults import Fault
from pipelines.exchange.floor import Floor
from pipelines.exchange.sockets import Client

_LOG = logging.getLogger(__name__)

_GARBAGE = (b'[{"T":"t","S":"AAPL","p":', b"\xc1\xff\x00 no message at all", b'{"T":"t"}')
"""Broken off; neither JSON nor msgpack; no array."""


_WHOLE = {"trades": set("ixpscz"), "quotes": {"bp", "ap"}, "bars": set("ohlcvn")}
"""What a message must have for others to be made of it."""


class FaultEffects:
    """Does what a floor's script says.

    Args:
        floor: The market, with its script.
    """

    def __init__(self, floor: Floor) -> None:
        self._floor = floor

    def step(self, *, wall_ns: int) -> None:
        """Carry out what begins or ends by now."""
        floor = self._floor
        market = floor.market_ns() if floor.clock is not None else None
        began, ended = floor.faults.step(
            wall_ns=wall_ns, market_ns=market, open_ns=floor.first_ns if floor.clock else None
        )
        for fault in began:
            _LOG.info("fault: %s", fault.entry)
            self._begin(fault)
        for fault in ended:
            self._end(fault)

    def clear(self) -> None:
        """End all faults; a halted symbol trades again."""
        for fault in self._floor.faults.windows:
            self._end(fault)
        self._floor.faults.clear()

    def clients(self, feed: str | None = None) -> list[Client]:
        """The connections, or those of a feed."""
        found = [c for c in self._floor.all_listeners() if isinstance(c, Client)]
        return [c for c in found if feed is None or c.feed == feed]

    def _begin(self, fault: Fault) -> None:
        do, parameters = fault.do, fault.parameters
        if do == "garbage":
            given = parameters["b64"]
            frames = list(islice(cycle([given] if given else _GARBAGE), parameters["frames"]))
            self._floor.inject_raw(frames, self.clients(fault.feed))
        elif do in _MADE:
            self._publish(_MADE[do](self, fault))
        else:
            for client in self.clients(fault.feed):
                if do == "drop" and parameters["close_code"] is None:
                    client.abort()
                elif do == "drop":
                    client.finish(parameters["close_code"])
                elif do == "half_frame":
                    client.cut_next_frame()
                elif do == "error":
                    client.tell(parameters["code"])

    def _end(self, fault: Fault) -> None:
        if fault.do == "halt":
            self._publish(self._status(fault, "T", "Trading Resumption"))

    def _publish(self, messages: list[Message]) -> None:
        if messages:
            self._floor.inject(messages, ())

    def _now(self) -> str:
        return format_time_ns(self._floor.latest_ns)

    def _last(self, fault: Fault, channel: str) -> list[Message]:
        """The last message of each symbol named; without names that of one symbol.

        One that was a fault itself, or came from outside and lacks a field, does not count.
        """
        last = [
            message
            for (of, symbol), message in self._floor.last.items()
            if of == channel
            and fault.names(symbol)
            and message.keys() >= _WHOLE[channel]
            and reject_reason(message, market_ns=self._floor.latest_ns) is None
        ]
        if not last:
            _LOG.warning("fault %s: nothing on %s yet, so nothing is done", fault.do, channel)
        return last if fault.symbols else last[:1]

    def _names(self, fault: Fault) -> list[str]:
        known = list(self._floor.source.symbols)
        return [s for s in known if s in fault.symbols] if fault.symbols else known[:1]

    def _correction(self, fault: Fault) -> list[Message]:
        factor = 1 + fault.parameters["change_bps"] / 1e4
        return [
            {"T": "c", "S": t["S"], "x": t["x"], "oi": t["i"], "op": t["p"], "os": t["s"],
             "oc": t["c"], "ci": t["i"] + 50_000, "cp": round(t["p"] * factor, 4), "cs": t["s"],
             "cc": t["c"], "t": self._now(), "z": t["z"]}
            for t in self._last(fault, "trades")
        ]  # fmt: skip

    def _cancel(self, fault: Fault) -> list[Message]:
        return [
            {"T": "x", "S": t["S"], "i": t["i"], "x": t["x"], "p": t["p"], "s": t["s"], "a": "C",
             "t": self._now(), "z": t["z"]}
            for t in self._last(fault, "trades")
        ]  # fmt: skip

    def _updated_bar(self, fault: Fault) -> list[Message]:
        factor = 1 + fault.parameters["change_bps"] / 1e4
        made = []
        for bar in self._last(fault, "bars"):
            close = round(bar["c"] * factor, 4)
            high, low = max(bar["h"], close), min(bar["l"], close)
            changed = {"T": "u", "c": close, "h": high, "l": low, "v": bar["v"] + 100}
            made.append({**bar, **changed, "n": bar["n"] + 1})
        return made

    def _halt(self, fault: Fault) -> list[Message]:
        return self._status(fault, "H", "Trading Halt")

    def _status(self, fault: Fault, code: str, said: str) -> list[Message]:
        reason = fault.parameters["reason"] if code == "H" else ""
        return [
            {"T": "s", "S": symbol, "sc": code, "sm": said, "rc": reason, "rm": reason,
             "t": self._now(), "z": "C"}
            for symbol in self._names(fault)
        ]  # fmt: skip

    def _burst(self, fault: Fault) -> list[Message]:
        quotes = self._last(fault, "quotes")
        now = self._now()
        return [{**q, "t": now} for q in islice(cycle(quotes), fault.parameters["messages"])]

    def _bad_price(self, fault: Fault) -> list[Message]:
        now, prices = self._now(), fault.parameters["values"]
        return [
            {**trade, "i": trade["i"] + 60_000 + n, "p": price, "t": now}
            for trade in self._last(fault, "trades")
            for n, price in enumerate(prices)
        ]

    def _unknown_type(self, fault: Fault) -> list[Message]:
        return [
            {"T": "zz", "S": symbol, "t": self._now(), "what": "a fault"}
            for symbol in self._names(fault)
            for _ in range(fault.parameters["messages"])
        ]


_MADE: dict[str, Any] = {
    "correction": FaultEffects._correction,
    "cancel": FaultEffects._cancel,
    "updated_bar": FaultEffects._updated_bar,
    "halt": FaultEffects._halt,
    "burst": FaultEffects._burst,
    "bad_price": FaultEffects._bad_price,
    "unknown_type": FaultEffects._unknown_type,
}
