"""The paper fills that signals tell of: each once into the lake, then onto ``market-signals``.

Serving tells a fill with every answer until it has seen one of them published, so that an answer
that came too late loses none. The fills of an account are ordered in time: of what a committed
signal tells, the fills after the last one that the lake holds are new. What a driver did not get
to between committing signals and fills, the next one finds in the signals.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson
import pyarrow as pa

from pipelines.clock import wall_ns
from pipelines.errors import StreamError
from pipelines.events import DAY_NS, MINUTE_NS, format_time_ns, item, parse_time_ns
from pipelines.lake.query import LakeQuery
from pipelines.lake.writer import LakeWriter
from pipelines.ports import ItemSink
from pipelines.streaming.rows import table_of
from pipelines.streaming.schemas import SIGNALS

_FILLS: Final = "fills"
_RECOVERED: Final = "signals-recovered-fills"
_SAME: Final = (
    "side", "shares", "price", "open", "spread_bps", "notional", "commission", "spread_cost",
    "slippage_cost", "cash_after", "shares_after", "reason",
)  # fmt: skip
_TOLD: Final = (*_SAME, "bid_price", "ask_price", "model_id", "model_version", "signal_id")

_KNOWN: Final = """
    SELECT model_id, model_version, symbol, max(event_time_ns) AS ns FROM fills GROUP BY ALL
"""
_UNTOLD: Final = """
    SELECT symbol, model_id, model_version, payload FROM signals
    WHERE known_at >= make_timestamptz($since_us) AND contains(payload, '"fills":[{')
    ORDER BY event_time_ns
"""
_RECENT: Final = """
    SELECT * FROM fills WHERE known_at >= make_timestamptz($since_us) ORDER BY event_time_ns
"""

_log = logging.getLogger(__name__)

Account = tuple[str, str, str]
"""Model, its version, symbol."""


class Fills:
    """One driver's fills. One thread calls it.

    Args:
        writer: The lake.
        sink: ``market-signals``.
        clock: Wall time, nanoseconds.
    """

    def __init__(
        self, writer: LakeWriter, sink: ItemSink, *, clock: Callable[[], int] = wall_ns
    ) -> None:
        self._writer = writer
        self._sink = sink
        self._clock = clock
        self._generation = 0
        self._last: dict[Account, int] = {}

    def open(self, generation: int) -> None:
        """Learn what the lake holds, and add what an older driver did not get to.

        Args:
            generation: That of the query ``signals``, whose fence stands in ``fills`` too.

        Raises:
            LakeError: The lake cannot be read or written.
        """
        self._generation = generation
        lake = LakeQuery(self._writer.uri, self._writer.storage_options)
        known = lake.sql(_KNOWN).to_pylist()
        self._last = {(r["model_id"], r["model_version"], r["symbol"]): r["ns"] for r in known}
        now_ns = self._clock()
        signals = lake.sql(_UNTOLD, {"since_us": (now_ns - DAY_NS) // 1000})
        rows = self.new(signals)
        if rows:
            _log.warning("%d fills are added that an older driver did not get to", len(rows))
            batch_id = self._writer.next_batch(_FILLS, _RECOVERED)
            self._commit(rows, now_ns, query_id=_RECOVERED, batch_id=batch_id)
        recent = lake.sql(_RECENT, {"since_us": (now_ns - 10 * MINUTE_NS) // 1000})
        try:  # readers drop what they know
            if recent.num_rows:
                self._sink.put_items(list(fill_items(recent)))
        except StreamError as error:
            _log.warning("fills are not published again: %s", error)

    def take(self, signals: pa.Table, *, known_ns: int, query_id: str, batch_id: int) -> int:
        """Add the fills that committed signals tell of, and publish them; how many.

        Args:
            signals: Rows of ``signals``.
            known_ns: Wall time of the batch.
            query_id: Spark's query id.
            batch_id: Spark's batch id.

        Raises:
            Fenced: A newer driver owns the query.
            LakeError: The lake cannot be written.
            StreamError: The items could not be stored.
        """
        rows = self.new(signals)
        if rows:
            made = self._commit(rows, known_ns, query_id=query_id, batch_id=batch_id)
            self._sink.put_items(list(fill_items(made)))
        return len(rows)

    def new(self, signals: pa.Table) -> list[dict[str, Any]]:
        """The fills that signals tell of and the lake does not hold, by account in order of time.

        Args:
            signals: ``symbol model_id model_version payload``, of each symbol in order of time.
        """
        last = dict(self._last)
        found = []
        for row in signals.to_pylist():
            account = (row["model_id"], row["model_version"], row["symbol"])
            told = orjson.loads(row["payload"]).get("fills") or ()
            for fill in sorted(told, key=lambda fill: parse_time_ns(fill["event_time"])):
                ns = parse_time_ns(fill["event_time"])
                if ns > last.get(account, -1):
                    last[account] = ns
                    found.append(_row(fill, account))
        return found

    def _commit(
        self, rows: Sequence[Mapping[str, Any]], known_ns: int, *, query_id: str, batch_id: int
    ) -> pa.Table:
        made = table_of(_FILLS, [{**row, "known_at": known_ns // 1000} for row in rows])
        self._writer.commit(
            _FILLS, made, query_id=query_id, batch_id=batch_id,
            generation=self._generation, query=SIGNALS,
        )  # fmt: skip
        for row in rows:
            account = (row["model_id"], row["model_version"], row["symbol"])
            self._last[account] = row["event_time_ns"]
        return made


def fill_items(fills: pa.Table) -> Iterator[dict[str, Any]]:
    """Items ``fill`` of committed rows, the model in the id."""
    for row in fills.to_pylist():
        yield item(
            "fill",
            symbol=row["symbol"],
            event_time=format_time_ns(row["event_time_ns"]),
            data={
                **{name: row[name] for name in _TOLD},
                "decided_on": _text(row["decided_on"]),
                "filled_at": _text(row["filled_at"]),
            },
            model=f"{row['model_id']}:{row['model_version']}",
        )


def _row(fill: Mapping[str, Any], account: Account) -> dict[str, Any]:
    model_id, version, symbol = account
    ns = parse_time_ns(fill["event_time"])
    decided_on = fill["decided_on"]
    signal = item(
        "signal", symbol=symbol, event_time=decided_on, data={}, model=f"{model_id}:{version}"
    )
    return {
        "symbol": symbol,
        "event_time": ns // 1000,
        "event_time_ns": ns,
        **{name: fill[name] for name in _SAME},
        "bid_price": fill["bid"],
        "ask_price": fill["ask"],
        "model_id": model_id,
        "model_version": version,
        "signal_id": signal["id"],
        "decided_on": parse_time_ns(decided_on) // 1000,
        "filled_at": parse_time_ns(fill["filled_at"]) // 1000,
    }


def _text(moment: Any) -> str:
    return format_time_ns(pa.scalar(moment, pa.timestamp("us", tz="UTC")).value * 1000)
