"""Views over the tables: what holds now, and what was known when. SQL (DuckDB), pure text.

=====================  ========================================================================
``trades_current``     the trades as they stand: cancelled ones left out, corrected ones with what
                       the last correction says (``corrected``); a raw trade is never rewritten
``bars_current``       one bar a minute: its last revision, else the vendor's last word, else our
                       own bar that stood in
``features_as_of(t)``  the features that were known at a time: the last revision of each minute
                       with ``known_at`` at or before it
``alerts_current``     each alert once: as it ended, or without an end while it stands
=====================  ========================================================================

A correction names the trade that it corrects by id, within symbol, exchange and trading day
(:func:`pipelines.events.market_day`, not the UTC date of the partition); of several about one id
the one received last counts, and a correction may itself be corrected.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from pipelines.events import DAY_NS, MARKET_DAY_BEGINS_NS

_MARKET_DAY: Final = f"(event_time_ns - {MARKET_DAY_BEGINS_NS}) // {DAY_NS}"

# Every chain of corrections to where it ends, by the id that it begins with.
_CORRECTED: Final = f"""
    CREATE TEMP VIEW corrected AS
    WITH RECURSIVE words AS (
        SELECT symbol, {_MARKET_DAY} AS market_day, exchange, original_id, type, corrected_id,
               corrected_price, corrected_size, corrected_conditions, received_at_ns
        FROM corrections WHERE original_id IS NOT NULL
        QUALIFY row_number() OVER (PARTITION BY symbol, market_day, exchange, original_id
            ORDER BY received_at_ns DESC, bseq DESC, position DESC) = 1
    ), chain AS (
        SELECT *, original_id AS root_id, 0 AS depth FROM words
        UNION ALL
        SELECT w.*, c.root_id, c.depth + 1
        FROM chain c JOIN words w ON w.symbol = c.symbol AND w.market_day = c.market_day
            AND w.exchange IS NOT DISTINCT FROM c.exchange AND w.original_id = c.corrected_id
        WHERE c.type = 'c' AND c.corrected_id <> c.original_id AND c.depth < 16
    )
    SELECT * EXCLUDE (depth, original_id, received_at_ns),
           max(received_at_ns) OVER (PARTITION BY symbol, market_day, exchange, root_id)
               AS corrected_at_ns
    FROM chain
    QUALIFY row_number() OVER (PARTITION BY symbol, market_day, exchange, root_id
        ORDER BY depth DESC) = 1
"""  # noqa: S608 - our own numbers

_TRADES_CURRENT: Final = f"""
    CREATE TEMP VIEW trades_current AS
    SELECT t.* REPLACE (
               if(k.type = 'c', coalesce(k.corrected_price, t.price), t.price) AS price,
               if(k.type = 'c', coalesce(k.corrected_size, t.size), t.size) AS size,
               if(k.type = 'c', coalesce(k.corrected_id, t.trade_id), t.trade_id) AS trade_id,
               if(k.type = 'c', coalesce(k.corrected_conditions, t.conditions), t.conditions)
                   AS conditions),
           k.type IS NOT NULL AS corrected
    FROM trades t LEFT JOIN corrected k ON k.symbol = t.symbol
        AND k.market_day = {_MARKET_DAY}
        AND k.exchange IS NOT DISTINCT FROM t.exchange AND k.root_id = t.trade_id
    WHERE k.type IS DISTINCT FROM 'x'
"""  # noqa: S608

_BARS_CURRENT: Final = """
    CREATE TEMP VIEW bars_current AS
    SELECT * EXCLUDE (received_at_ns, bseq, position) FROM (
        SELECT symbol, event_time, event_time_ns, open, high, low, close, volume,
               trade_count, vwap, 'vendor' AS source, 0 AS revision, received_at_ns,
               bseq, position, date
        FROM bars
        UNION ALL
        SELECT symbol, event_time, event_time_ns, open, high, low, close, volume,
               trade_count, vwap, source, revision, NULL, NULL, NULL, date
        FROM features WHERE revision > 0 OR source = 'trades'
    )
    QUALIFY row_number() OVER (PARTITION BY symbol, date, event_time_ns
        ORDER BY revision DESC, (source = 'vendor') DESC,
                 received_at_ns DESC, bseq DESC, position DESC) = 1
"""

_FEATURES_AS_OF: Final = """
    CREATE TEMP MACRO features_as_of(known) AS TABLE
    SELECT * FROM features WHERE known_at <= known::TIMESTAMPTZ
    QUALIFY row_number() OVER (PARTITION BY symbol, date, event_time_ns
        ORDER BY revision DESC) = 1
"""

_ALERTS_CURRENT: Final = """
    CREATE TEMP VIEW alerts_current AS
    SELECT * FROM alerts
    QUALIFY row_number() OVER (PARTITION BY alert_id ORDER BY ended_at DESC NULLS LAST) = 1
"""

_DEFINITIONS: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "corrected": (("corrections",), _CORRECTED),
    "trades_current": (("trades", "corrected"), _TRADES_CURRENT),
    "bars_current": (("bars", "features"), _BARS_CURRENT),
    "features_as_of": (("features",), _FEATURES_AS_OF),
    "alerts_current": (("alerts",), _ALERTS_CURRENT),
}

VIEWS: Final = ("trades_current", "bars_current", "features_as_of(time)", "alerts_current")
"""What can be asked for besides the tables."""


def needed(query: str, tables: Iterable[str]) -> tuple[list[str], list[str]]:
    """The tables that a query reads, and the statements that define its views, in order.

    Args:
        query: SQL; every word of it that is a name counts as one.
        tables: Names of the tables.

    >>> needed("SELECT * FROM trades_current", ["bars", "trades", "corrections"])[0]
    ['trades', 'corrections']
    >>> needed("SELECT 1 FROM bars", ["bars", "trades"])
    (['bars'], [])
    """
    words = set(re.findall(r"\w+", query.lower()))
    statements: list[str] = []
    wanted: dict[str, None] = {}

    def define(name: str) -> None:
        parts, statement = _DEFINITIONS[name]
        for part in parts:
            if part in _DEFINITIONS:
                define(part)
            else:
                wanted[part] = None
        if statement not in statements:
            statements.append(statement)

    for name in _DEFINITIONS:
        if name in words:
            define(name)
    wanted |= dict.fromkeys(name for name in tables if name in words)
    return list(wanted), statements
