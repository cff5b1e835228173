"""The trading REST interface's view of the market: clock, calendar and assets."""

from __future__ import annotations

import asyncio
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from aiohttp import web

from pipelines import calendar
from pipelines.events import DAY_NS, SECOND_NS
from pipelines.exchange.asked import date_ns
from pipelines.exchange.floor import Floor
from pipelines.exchange.gate import answer
from pipelines.exchange.market import BarSource, Session
from pipelines.exchange.refusals import Refused
from pipelines.exchange.sockets import FLOOR
from pipelines.exchange.timeframes import NEW_YORK

_FIRST_DAY, _LAST_DAY = date(1970, 1, 1), date(2029, 12, 31)
_LISTED = {"A": "NYSE", "B": "ARCA", "C": "NASDAQ"}


def new_york(ns: int) -> str:
    """RFC 3339 text of a moment in New York.

    >>> new_york(1_720_000_000_500_000_000)
    '2024-07-03T05:46:40.5-04:00'
    """
    seconds, nanos = divmod(ns, SECOND_NS)
    moment = datetime.fromtimestamp(seconds, NEW_YORK)
    text, offset = moment.strftime("%Y-%m-%dT%H:%M:%S"), moment.strftime("%z")
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    return f"{text}{fraction}{offset[:3]}:{offset[3:]}"


def sessions_ahead(source: BarSource, now_ns: int) -> list[Session]:
    """The sessions that run or come within two weeks; past a file's end, the calendar's."""
    until_ns = now_ns + 15 * DAY_NS
    ahead = [s for s in source.sessions(now_ns, until_ns) if s[1] > now_ns]
    if not any(opens > now_ns for opens, _ in ahead):
        days = [datetime.fromtimestamp(ns // SECOND_NS, NEW_YORK).date()
                for ns in (now_ns, until_ns)]  # fmt: skip
        last = ahead[-1][1] if ahead else now_ns
        ahead += [s for s in calendar.sessions(*days) if s[0] > last]
    return ahead


def running(floor: Floor) -> Session | None:
    """The session that runs now, whole; ``None`` while the market is closed."""
    now_ns = floor.market_ns()
    if not floor.is_open():
        return None
    return next((s for s in floor.source.sessions(now_ns, now_ns) if s[0] <= now_ns < s[1]), None)


async def clock(request: web.Request) -> web.Response:
    """``GET /v2/clock``: the vendor's clock, in the market's time."""
    floor = request.app[FLOOR]
    now_ns = floor.market_ns()
    ahead = sessions_ahead(floor.source, now_ns)
    return answer(
        {
            "timestamp": new_york(now_ns),
            "is_open": running(floor) is not None,
            "next_open": new_york(next(opens for opens, _ in ahead if opens > now_ns)),
            "next_close": new_york(ahead[0][1]),
        }
    )


async def trading_days(request: web.Request) -> web.Response:
    """``GET /v2/calendar``: the trading days of the NYSE with their hours in New York."""
    first, last = (_day(request, name) for name in ("start", "end"))
    return answer(await asyncio.to_thread(_days, first or _FIRST_DAY, last or _LAST_DAY))


def _day(request: web.Request, name: str) -> date | None:
    text = request.query.get(name, "")[:10]  # a moment counts as its day
    if not text:
        return None
    date_ns(text, name)
    return date.fromisoformat(text)


def _days(first: date, last: date) -> list[dict[str, str]]:
    return [day for day in _all_days() if str(first) <= day["date"] <= str(last)]


@cache
def _all_days() -> list[dict[str, str]]:
    found = []
    for opens, closes in calendar.sessions(_FIRST_DAY, _LAST_DAY):
        start, end = (datetime.fromtimestamp(ns // SECOND_NS, NEW_YORK) for ns in (opens, closes))
        found.append(
            {
                "date": str(start.date()),
                "open": start.strftime("%H:%M"),
                "close": end.strftime("%H:%M"),
                "session_open": "0400",
                "session_close": "2000",
                "settlement_date": "",
            }
        )
    for day, settled in zip(found, [d["date"] for d in found[1:]], strict=False):
        day["settlement_date"] = settled  # one trading day later
    if found:
        last = date.fromisoformat(found[-1]["date"])
        found[-1]["settlement_date"] = str(last + timedelta(days=1))
    return found


def asset_id(symbol: str) -> UUID:
    """Id of a symbol, the same in every run."""
    return uuid5(NAMESPACE_URL, f"raytape:asset:{symbol}")


def listed_on(source: BarSource, symbol: str) -> str:
    """The exchange that lists a symbol of the market."""
    return _LISTED[source.profiles[source.symbols.index(symbol)].tape]


def asset(source: BarSource, symbol: str, *, shortable: bool) -> dict[str, Any]:
    """A symbol as the vendor describes it."""
    return {
        "id": str(asset_id(symbol)),
        "class": "us_equity",
        "exchange": listed_on(source, symbol),
        "symbol": symbol,
        "name": f"{symbol} (simulated)",
        "status": "active",
        "tradable": True,
        "marginable": shortable,
        "maintenance_margin_requirement": 30,
        "shortable": shortable,
        "easy_to_borrow": shortable,
        "fractionable": True,
        "attributes": [],
    }


def symbol_of(source: BarSource, text: str) -> str | None:
    """The symbol that a symbol or an asset's id means, if it is traded here."""
    if text.upper() in source.symbols:
        return text.upper()
    return next((s for s in source.symbols if str(asset_id(s)) == text.lower()), None)


async def assets(request: web.Request) -> web.Response:
    """``GET /v2/assets``, with the filters status, asset_class, exchange and attributes."""
    floor, asked = request.app[FLOOR], request.query
    known = (asset(floor.source, s, shortable=floor.config.shorting) for s in floor.source.symbols)
    wanted = {
        "status": asked.get("status"),
        "class": asked.get("asset_class"),
        "exchange": asked.get("exchange"),
    }
    if asked.get("attributes"):
        return answer([])
    found = [a for a in known if all(v is None or a[k] == v for k, v in wanted.items())]
    return answer(found)


async def one_asset(request: web.Request) -> web.Response:
    """``GET /v2/assets/{symbol or id}``."""
    floor, name = request.app[FLOOR], request.match_info["asset"]
    symbol = symbol_of(floor.source, name)
    if symbol is None:
        raise Refused(404, f"asset not found for {name}", code=40410000)
    return answer(asset(floor.source, symbol, shortable=floor.config.shorting))


ROUTES = (
    web.get("/v2/clock", clock),
    web.get("/v2/calendar", trading_days),
    web.get("/v2/assets", assets),
    web.get("/v2/assets/{asset}", one_asset),
)
