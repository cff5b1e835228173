"""What the feed remembers: the newest of everything per symbol, and the log of updates. Pure.

In: decoded records of ``market-data`` and items of ``market-signals``, in stream order. Out:
updates in the log. Repeats are dropped (``bseq`` of the record's (epoch, bucket); ids of items),
and what :func:`pipelines.events.reject_reason` refuses is counted and skipped: the archive keeps
it in quarantine.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from pipelines.events import (
    BAR,
    MARKET_TYPES,
    MINUTE_NS,
    QUOTE,
    TRADE,
    Message,
    Record,
    format_time_ns,
    parse_time_ns,
    reject_reason,
)
from pipelines.ticks import Heartbeat, Quote, TickRecord, Trade
from serve.market import MarketTime
from serve.symbol_memory import SymbolMemory, forming_data, keep, tick_data
from serve.updates import MARKET, Update, UpdateLog

MAX_MARKS = 10_000
MAX_ITEM_IDS = 50_000
MAX_SYMBOLS = 12_000
LATENCY_SAMPLES = 2_000
_PASSED_ON = {"anomaly": "anomalies", "fill": "fills"}
EARLY = 0.8
"""A conflated update may come this fraction of its interval early: polls are not exactly even."""


class FeedMemory:
    """Folds both streams.

    Args:
        first_seq: Number before the first update. Wall microseconds at the start make numbers
            grow over restarts.
        rate: Market seconds per wall second, until the clock is known.
        conflate_s: Least wall seconds between two updates of one symbol's trade, quote or
            forming bar.
        max_bars: Closed bars kept per symbol.
        max_signals: Signals and feature rows kept per symbol.
        max_updates: Updates kept in the log.
    """

    def __init__(
        self,
        *,
        first_seq: int = 0,
        rate: float = 1.0,
        conflate_s: float = 0.1,
        max_bars: int = 600,
        max_signals: int = 200,
        max_updates: int = 20_000,
    ) -> None:
        self.log = UpdateLog(max_updates=max_updates)
        self.log.seq = self.log.floor = first_seq
        self.market = MarketTime(rate=rate)
        self.symbols: dict[str, SymbolMemory] = {}
        self.counts = {
            "records": 0, "messages": 0, "duplicates": 0, "holes": 0, "rejected": 0, "items": 0,
            "item_repeats": 0,
        }  # fmt: skip
        self._conflate_ns = int(conflate_s * EARLY * 1e9)
        self._sizes = {"max_bars": max_bars, "max_signals": max_signals}
        self._marks: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._items: OrderedDict[str, None] = OrderedDict()
        self._dirty: dict[str, SymbolMemory] = {}
        self._emitted: dict[tuple[str, str], int] = {}
        self._flushed_seq = -1
        self._generation = 0  # of the driver whose forming bars are told
        self._fold = {TRADE: self._trade, QUOTE: self._quote, BAR: self._bar}
        self.latency_ms: deque[float] = deque(maxlen=LATENCY_SAMPLES)

    # ---- what comes in

    def apply_record(self, record: Record) -> None:
        """Fold one record of ``market-data``."""
        if not self._begin(record):
            return
        for message in record.messages:
            kind = message.get("T") if isinstance(message, dict) else None
            if type(kind) is not str or kind not in MARKET_TYPES:
                continue
            self.counts["messages"] += 1
            if message.get("bf"):  # of a time that is over: nothing newest is in it
                continue
            fold = self._fold.get(kind)
            if fold is None:
                continue
            if reject_reason(message, market_ns=record.market_ns) is not None:
                self.counts["rejected"] += 1
                continue
            memory = self.symbol(message["S"])
            if memory is not None:
                fold(memory, message)

    def apply_ticks(self, record: TickRecord) -> None:
        """Fold one record that holds nothing but ticks; of quotes only the newest counts."""
        if not self._begin(record):
            return
        quotes: dict[str, Quote] = {}
        for tick in record.messages:
            if isinstance(tick, Heartbeat):
                continue
            self.counts["messages"] += 1
            try:
                ns = parse_time_ns(tick.t)
            except (ValueError, OverflowError):
                ns = -1
            if not record.earliest_ns <= ns <= record.latest_ns:
                self.counts["rejected"] += 1
            elif isinstance(tick, Quote):
                quotes[tick.S] = tick
            elif (memory := self.symbol(tick.S)) is not None:
                self._take_trade(memory, tick, ns)
        for symbol, quote in quotes.items():
            if (memory := self.symbol(symbol)) is not None:
                self._take_quote(memory, quote)

    def _begin(self, record: Record | TickRecord) -> bool:
        """Whether a record is new; the first one tells the market time."""
        if not self._fresh(record):
            self.counts["duplicates"] += len(record.messages)
            return False
        if self.market.clock is None and record.sent_at_ns > self.market.anchor_wall_ns:
            self.market = MarketTime(
                rate=self.market.rate,
                anchor_wall_ns=record.sent_at_ns,
                anchor_market_ns=record.market_ns,
            )
        self.counts["records"] += 1
        return True

    def apply_items(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Fold items of ``market-signals``."""
        for item in items:
            if item["kind"] == "provisional":
                self._provisional(item)
                continue
            if item["kind"] == "alert":  # told again with its end
                name, at = item["symbol"], item["event_time"]
                self._emit("alerts", name, item["data"]["id"], at, item["data"])
                continue
            if item["id"] in self._items:
                self.counts["item_repeats"] += 1
                continue
            self._items[item["id"]] = None
            if len(self._items) > MAX_ITEM_IDS:
                self._items.popitem(last=False)
            self.counts["items"] += 1
            kind, symbol = item["kind"], item["symbol"]
            if (memory := self.symbol(symbol)) is None:
                continue
            event_time, data = item["event_time"], item["data"]
            if kind == "bar" and data.get("window", "1m") != "1m":
                key = f"{data['window']}:{event_time}"
                self._emit("rollups", symbol, key, event_time, {"event_time": event_time, **data})
            elif kind == "bar":
                self._close(memory, symbol, {"event_time": event_time, **data})
            elif kind == "features":
                keep(memory.features, {"event_time": event_time, **data})
                self._emit("features", symbol, item["id"], event_time, data)
                self._say_newest("features", symbol, memory.features, after=event_time)
            elif kind == "signal":
                keep(memory.signals, {"event_time": event_time, **data})
                self._emit("signals", symbol, item["id"], event_time, data)
            elif kind == "stats":
                keep(memory.stats, {"event_time": event_time, **data})
                self._emit("stats", symbol, event_time, event_time, data)
            elif kind in _PASSED_ON:
                self._emit(_PASSED_ON[kind], symbol, item["id"], event_time, data)

    def _provisional(self, item: Mapping[str, Any]) -> None:
        """Tell of a forming bar with its features; only the newest counts, none is remembered.

        What a driver says that has been replaced, and does not know it yet, is passed over.
        """
        memory, event_time = self.symbol(item["symbol"]), item["event_time"]
        data = {"event_time": event_time, **item["data"]}
        generation = data.pop("generation", 0)
        if memory is None or generation < self._generation:
            return
        self._generation = generation
        if memory.bars and parse_time_ns(memory.bars[-1]["event_time"]) >= parse_time_ns(
            event_time
        ):
            return  # it has closed meanwhile
        self._emit("provisional", item["symbol"], "", event_time, data)

    def set_system(self, system: Mapping[str, Any], *, event_time: str) -> None:
        """Put the state of the platform."""
        self._emit("system", MARKET, "", event_time, system)

    def add_history(self, symbol: str, bars: Iterable[Mapping[str, Any]]) -> None:
        """Put closed bars of the past (oldest first) before what is known; sends no updates."""
        memory = self.symbol(symbol)
        if memory is None:
            return
        known = {bar["event_time"]: bar for bar in memory.bars}
        merged = {bar["event_time"]: dict(bar) for bar in bars} | known
        memory.bars.clear()
        memory.bars.extend(merged[t] for t in sorted(merged, key=parse_time_ns))

    def symbol(self, symbol: str) -> SymbolMemory | None:
        """The memory of a symbol, made at its first mention; ``None`` when there are too many."""
        memory = self.symbols.get(symbol)
        if memory is None and len(self.symbols) < MAX_SYMBOLS:
            memory = self.symbols[symbol] = SymbolMemory(**self._sizes)
        return memory

    # ---- what goes out

    def bars_of(self, memory: SymbolMemory) -> list[dict[str, Any]]:
        """Closed bars, oldest first, and the forming one at the end."""
        rows = [{**bar, "forming": False} for bar in memory.bars]
        if memory.forming is not None:
            rows.append(forming_data(memory.forming))
        return rows

    def flush(self, *, wall: int) -> bool:
        """Log the conflated updates that are due; whether anything was logged since the last."""
        before = self._flushed_seq
        for symbol in list(self._dirty):
            memory = self._dirty[symbol]
            for channel in list(memory.touched):
                if wall - self._emitted.get((channel, symbol), 0) < self._conflate_ns:
                    continue
                memory.touched.discard(channel)
                self._emitted[(channel, symbol)] = wall
                self._log_newest(channel, symbol, memory, wall)
            if not memory.touched:
                del self._dirty[symbol]
        self._flushed_seq = self.log.seq
        return self.log.seq != before

    def _log_newest(self, channel: str, symbol: str, memory: SymbolMemory, wall: int) -> None:
        if channel == "bars":
            if memory.forming is not None:
                data = forming_data(memory.forming)
                self._emit("bars", symbol, data["event_time"], data["event_time"], data)
            return
        newest = memory.trade if channel == "trades" else memory.quote
        if newest is not None:
            received = newest["received_ns"]
            if received:
                self.latency_ms.append((wall - received) / 1e6)
            self._emit(channel, symbol, "", newest["event_time"], tick_data(newest))

    def _emit(
        self, channel: str, symbol: str, key: str, event_time: str, data: Mapping[str, Any]
    ) -> None:
        payload = orjson.dumps(data)
        self.log.add(Update(self.log.seq + 1, channel, symbol, key, event_time, payload))

    # ---- folding

    def _fresh(self, record: Record | TickRecord) -> bool:
        key = (record.epoch, record.bucket)
        last = self._marks.get(key)
        if last is not None:
            if record.bseq <= last:
                return False
            if record.bseq > last + 1:
                self.counts["holes"] += 1
        self._marks[key] = record.bseq
        if len(self._marks) > MAX_MARKS:
            self._marks.popitem(last=False)
        return True

    def _touch(self, symbol: str, memory: SymbolMemory, channel: str) -> None:
        memory.touched.add(channel)
        self._dirty[symbol] = memory

    def _trade(self, memory: SymbolMemory, m: Message) -> None:
        trade = Trade(m["S"], m["t"], float(m["p"]), float(m["s"]), x=m.get("x"), r=m.get("r"))
        self._take_trade(memory, trade, parse_time_ns(m["t"]))

    def _take_trade(self, memory: SymbolMemory, trade: Trade, ns: int) -> None:
        symbol, price, size = trade.S, trade.p, trade.s
        memory.trade = {
            "price": price,
            "size": size,
            "exchange": trade.x,
            "event_time": trade.t,
            "received_ns": trade.r or 0,
        }
        self._touch(symbol, memory, "trades")
        start = ns // MINUTE_NS * MINUTE_NS
        bar = memory.forming
        if bar is None or start > bar["start"]:
            if memory.bars and parse_time_ns(memory.bars[-1]["event_time"]) >= start:
                return  # its bar is closed already
            memory.forming = bar = {
                "start": start, "open": price, "high": price, "low": price, "close": price,
                "volume": 0.0, "trade_count": 0, "notional": 0.0,
            }  # fmt: skip
        elif start < bar["start"]:
            return
        bar["high"] = max(bar["high"], price)
        bar["low"] = min(bar["low"], price)
        bar["close"] = price
        bar["volume"] += size
        bar["trade_count"] += 1
        bar["notional"] += price * size
        self._touch(symbol, memory, "bars")

    def _quote(self, memory: SymbolMemory, m: Message) -> None:
        bid, bid_size, ask, ask_size = (float(m[key]) for key in ("bp", "bs", "ap", "as"))
        quote = Quote(m["S"], m["t"], bid, bid_size, ask, ask_size, r=m.get("r"))
        self._take_quote(memory, quote)

    def _take_quote(self, memory: SymbolMemory, quote: Quote) -> None:
        memory.quote = {
            "bid": quote.bp,
            "ask": quote.ap,
            "bid_size": quote.bs,
            "ask_size": quote.ask_size,
            "event_time": quote.t,
            "received_ns": quote.r or 0,
        }
        self._touch(quote.S, memory, "quotes")

    def _bar(self, memory: SymbolMemory, m: Message) -> None:
        start = parse_time_ns(m["t"]) // MINUTE_NS * MINUTE_NS
        bar = {
            "event_time": format_time_ns(start),
            "open": float(m["o"]),
            "high": float(m["h"]),
            "low": float(m["l"]),
            "close": float(m["c"]),
            "volume": float(m["v"]),
            "trade_count": m.get("n"),
            "vwap": m.get("vw"),
            "source": "vendor",
        }
        self._close(memory, m["S"], bar)

    def _close(self, memory: SymbolMemory, symbol: str, bar: dict[str, Any]) -> None:
        start = parse_time_ns(bar["event_time"])
        if memory.forming is not None and memory.forming["start"] <= start:
            memory.forming = None
            memory.touched.discard("bars")
        if not keep(memory.bars, bar):
            return
        data = {**bar, "forming": False, "window": "1m"}
        self._emit("bars", symbol, bar["event_time"], bar["event_time"], data)
        self._say_newest("bars", symbol, memory.bars, after=bar["event_time"])

    def _say_newest(
        self, channel: str, symbol: str, rows: deque[dict[str, Any]], *, after: str
    ) -> None:
        """Tell the newest row again after an older one was revised: the last word is on the newest.

        Who keeps only the last update of a channel would else decide on the past.
        """
        newest = rows[-1]
        if newest["event_time"] != after:
            shown = {"forming": False, "window": "1m"} if channel == "bars" else {}
            at = newest["event_time"]
            data = {k: v for k, v in newest.items() if channel == "bars" or k != "event_time"}
            self._emit(channel, symbol, at if channel == "bars" else "newest", at, data | shown)
