"""Rows for the lake and items for ``market-signals`` of what nobody decides on. Pure.

Roll-ups and statistics come with the payloads of the fold. They are a function of the stream, so
a batch that is replayed makes the same items with the same ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson
import pyarrow as pa

from pipelines.events import format_time_ns, item, parse_time_ns
from pipelines.lake.files import conform
from pipelines.lake.tables import TABLES

_STATS: Final = "stats"
_ANOMALIES: Final = "anomalies"
_COLUMNS: Final = ("count", "min", "max", "mean", "variance", "std")
_FOUND: Final = ("severity", "score", "value", "threshold", "reason", "detector")

Payload = Mapping[str, Any]


def table_of(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table of the lake; times are given in microseconds."""
    wanted = TABLES[name]
    columns = {
        field.name: pa.array(
            [row[field.name] for row in rows],
            pa.int64() if pa.types.is_timestamp(field.type) else field.type,
        ).cast(field.type)
        for field in wanted.file_schema
    }
    return conform(wanted, pa.table(columns))


def stats_table(bars: Iterable[Payload], *, known_ns: int) -> pa.Table:
    """Rows of ``stats`` from payloads of closed bars."""
    rows = []
    for payload in bars:
        stats = payload.get("stats")
        if stats is None:
            continue
        ns = parse_time_ns(payload["event_time"])
        rows.append(
            {
                "symbol": payload["symbol"],
                "event_time": ns // 1000,
                "event_time_ns": ns,
                "span": "session",
                **{name: stats[name] for name in _COLUMNS},
                "known_at": known_ns // 1000,
                "payload": orjson.dumps(
                    {k: v for k, v in stats.items() if k not in _COLUMNS}
                ).decode(),
            }
        )
    return table_of(_STATS, rows)


def anomalies_table(bars: Iterable[Payload], *, known_ns: int) -> pa.Table:
    """Rows of ``anomalies`` from payloads of closed bars."""
    rows = [
        {
            "symbol": payload["symbol"],
            "event_time": parse_time_ns(payload["event_time"]) // 1000,
            "event_time_ns": parse_time_ns(payload["event_time"]),
            "type": finding["kind"],
            **{name: finding[name] for name in _FOUND},
            "known_at": known_ns // 1000,
            "payload": orjson.dumps({"gap": payload["gap"]}).decode(),
        }
        for payload in bars
        for finding in payload.get("anomalies", ())
    ]
    return table_of(_ANOMALIES, rows)


def anomaly_items(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Items ``anomaly`` of committed rows, their kind in the id."""
    for row in table.to_pylist():
        yield item(
            "anomaly",
            symbol=row["symbol"],
            event_time=format_time_ns(row["event_time_ns"]),
            data={
                "kind": row["type"],
                **{name: row[name] for name in _FOUND},
                **orjson.loads(row["payload"]),
            },
            model=row["type"],
        )


def provisional_items(payloads: Iterable[Payload], *, generation: int) -> Iterator[dict[str, Any]]:
    """Items ``provisional``: forming bars and their features, which the next one replaces.

    They are of a kind of their own, so that nobody takes them for closed ones.

    Args:
        payloads: Of the fold.
        generation: That of the driver. No commit fences these items, so readers do: who has seen
            those of a newer driver takes none of an older one.
    """
    for payload in payloads:
        forming = payload["provisional"]
        yield item(
            "provisional",
            symbol=payload["symbol"],
            event_time=forming["event_time"],
            data={
                "provisional": True,
                "generation": generation,
                "bar": forming["bar"],
                "values": forming["values"],
            },
            model=str(forming["at_ns"]),
        )


def derived_items(payloads: Iterable[Payload]) -> Iterator[dict[str, Any]]:
    """Items ``bar`` of roll-ups, their window in the id, and items ``stats``."""
    for payload in payloads:
        symbol = payload["symbol"]
        for rolled in payload.get("rollups", ()):
            yield item(
                "bar",
                symbol=symbol,
                event_time=rolled["event_time"],
                data=rolled["bar"],
                revision=rolled["revision"],
                model=rolled["bar"]["window"],
            )
        if payload.get("stats") is not None:
            yield item(
                "stats", symbol=symbol, event_time=payload["event_time"], data=payload["stats"]
            )
