"""An exchange, an embedded Kinesis and producers as processes of their own, to be mistreated.

What is left of the platform (Spark, Ray, serving) has fault tests of its own: here a fault takes
seconds, and the tape of the exchange judges the stream itself.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from cluster import processes
from pipelines.clock import MarketClock
from pipelines.kinesis.tail import StreamTail
from pipelines.ports import KinesisConfig
from pipelines.tape import read_entries
from tests.chaos.ledger import Ledger, Sent, balance

SYMBOLS = ("SPY", "AAPL", "TSLA", "NVDA", "MSFT")
CHANNELS = ("trades", "quotes", "bars")
AUTOMATIC = ("corrections", "cancelErrors")


class Rig:
    """One run: start the parts, do harm, then :meth:`finish` and look at the ledger.

    Args:
        folder: Where everything of it is written.
        kinesis: The stream, as the judge reads it.
        symbols: What is traded and subscribed.
        channels: What is subscribed.
        channel_symbols: Channels of which only some symbols are subscribed.
        exchange: Changes to the exchange's configuration.
    """

    def __init__(
        self,
        folder: Path,
        kinesis: KinesisConfig,
        *,
        symbols: tuple[str, ...] = SYMBOLS,
        channels: tuple[str, ...] = CHANNELS,
        channel_symbols: Mapping[str, Sequence[str]] | None = None,
        **exchange: Any,
    ) -> None:
        self._folder = folder
        self._run = folder / "run"
        self._kinesis = kinesis
        self._symbols = symbols
        self._channels = channels
        self._channel_symbols = dict(channel_symbols or {})
        self._children = 0
        port = processes.free_port()
        self.http = f"http://127.0.0.1:{port}"
        self.ws = f"ws://127.0.0.1:{port}/v2/iex"
        given = {
            "port": port, "symbols": symbols, "speed": 60, "messages_per_minute": 600,
            "max_minutes": 10, "record_dir": str(folder / "tape"), **exchange,
        }  # fmt: skip
        (folder / "exchange.json").write_bytes(orjson.dumps(given))
        self.exchange = processes.start(
            "exchange",
            [sys.executable, "-m", "pipelines.exchange", str(folder / "exchange.json")],
            run_dir=self._run, log_dir=folder / "log",
        )  # fmt: skip
        self.until(lambda: processes.port_in_use(port), what="the exchange listens")

    def produce(
        self,
        *,
        kinesis_url: str | None = None,
        backfill: dict[str, Any] | None = None,
        lake: Path | None = None,
        name: str = "producer",
        module: str = "tests.chaos.producer_process",
        **config: Any,
    ) -> processes.Child:
        """Start a producer.

        Args:
            kinesis_url: Another way to the stream, for example through a proxy.
            backfill: Settings of the filling of gaps; ``None`` for none.
            lake: File of what the lake holds (:class:`tests.chaos.producer_process.FileMarks`).
            name: Its name.
            module: The program that hosts it.
            config: Changes to its configuration.
        """
        self._children += 1
        kinesis = asdict(self._kinesis)
        if kinesis_url is not None:
            kinesis["endpoint_url"] = kinesis_url
        given = {
            "kinesis": kinesis,
            "rest_url": self.http,
            "stats": str(self._stats_of(name)),
            "backfill": backfill,
            "lake": None if lake is None else str(lake),
            "config": {
                "url": self.ws, "symbols": self._symbols, "channels": self._channels,
                "channel_symbols": self._channel_symbols,
                "clock_url": f"{self.http}/raytape/clock",
                "state_path": str(self._folder / name / "state.json"),
                "backoff_first_s": 0.1, "backoff_cap_s": 1.0, **config,
            },
        }  # fmt: skip
        self._stats_of(name).unlink(missing_ok=True)
        path = self._folder / f"{name}.json"
        path.write_text(json.dumps(given))
        return processes.start(
            name,
            [sys.executable, "-m", module, str(path)],
            run_dir=self._run, log_dir=self._folder / "log",
        )  # fmt: skip

    def fault(self, *entries: dict[str, Any]) -> None:
        """Add scripted faults to the exchange."""
        self._post("/raytape/faults", list(entries))

    def fired(self) -> int:
        """How often faults have begun."""
        return sum(entry["fired"] for entry in self._get("/raytape/faults"))

    def stats(self, name: str = "producer") -> dict[str, Any]:
        """What a producer said last."""
        path = self._stats_of(name)
        return json.loads(path.read_text()) if path.exists() else {}

    def market(self) -> dict[str, Any]:
        """The announcement of the exchange."""
        return self._get("/raytape/clock")

    def published(self) -> int:
        """Messages that the exchange has published."""
        return int(self._get("/raytape/stats")["published"])

    def until(self, condition: Callable[[], Any], *, what: str, timeout_s: float = 60) -> None:
        """Poll until a condition is true."""
        processes.wait_until(condition, name=what, timeout_s=timeout_s, poll_s=0.05)

    def streaming(self, *, name: str = "producer", timeout_s: float = 60) -> None:
        """Wait until a producer streams."""
        self.until(
            lambda: self.stats(name).get("state") == "streaming",
            what=f"{name} streams", timeout_s=timeout_s,
        )  # fmt: skip

    def kill(self, child: processes.Child) -> None:
        """kill -9."""
        os.killpg(child.pid, signal.SIGKILL)
        self.until(lambda: child.process() is None, what=f"{child.name} is dead")

    def finish(self, *names: str, timeout_s: float = 120, archived: Sequence[bytes] = ()) -> Ledger:
        """Let the market end, drain the producers, and balance.

        Args:
            names: The producers.
            timeout_s: Longest wait for the end of the market.
            archived: Records of a stream that is gone, which the lake had read before.
        """
        self.until(
            lambda: self.market()["state"] == "finished",
            what="the market has finished", timeout_s=timeout_s,
        )  # fmt: skip
        clock = MarketClock.from_dict(self.market()["clock"])
        for name in names or ("producer",):
            self._drain(name, timeout_s)
        processes.stop(self.exchange, run_dir=self._run)
        wanted = {*self._channels, *(AUTOMATIC if "trades" in self._channels else ())}
        sent = [
            Sent(entry["m"], clock.market_ns(entry["w"]))
            for entry in read_entries(self._folder / "tape")
            if entry["c"] in wanted and self._asked(entry["c"], entry["m"])
        ]
        return balance(sent, [*archived, *self.stream()])

    def _asked(self, channel: str, message: dict[str, Any]) -> bool:
        """Whether a message of a subscribed channel is of a symbol that is subscribed on it."""
        channel = "trades" if channel in AUTOMATIC else channel
        chosen = self._channel_symbols.get(channel)
        return chosen is None or message.get("S") in chosen

    def stream(self) -> list[bytes]:
        """The records that the stream holds, in order within a shard."""
        return list(StreamTail(self._kinesis, self._kinesis.market_data).read_after({}))

    def close(self) -> None:
        """End every process that is left."""
        for child in processes.running(run_dir=self._run):
            processes.stop(child, run_dir=self._run)

    def _drain(self, name: str, timeout_s: float) -> None:
        def settled() -> bool:
            stats = self.stats(name)
            open_gaps = stats.get("backfills_open") or 0
            return stats.get("state") in ("streaming", "failed") and not open_gaps

        self.until(settled, what=f"{name} has settled", timeout_s=timeout_s)
        for child in processes.running(run_dir=self._run):
            if child.name == name:
                os.kill(child.pid, signal.SIGTERM)
        self.until(lambda: "drained" in self.stats(name), what=f"{name} has drained")
        assert self.stats(name)["drained"], self.stats(name)

    def _stats_of(self, name: str) -> Path:
        return self._folder / f"{name}-stats.json"

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(self.http + path, timeout=10) as answer:
            return json.load(answer)

    def _post(self, path: str, body: object) -> None:
        request = urllib.request.Request(
            self.http + path, data=orjson.dumps(body), headers={"content-type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=10).close()
