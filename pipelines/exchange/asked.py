"""What a market-data request asks for: symbols, range, order, page. Pure.

In: the query string as a mapping. Out: checked values, or :class:`~.refusals.Refused` with the
vendor's status and a sentence that names the parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from pipelines.events import SECOND_NS, parse_time_ns
from pipelines.exchange.refusals import Refused
from pipelines.exchange.timeframes import NEW_YORK, midnight_ns

MAX_LIMIT = 10_000
_FIRST_NS = -(2**63)
_FEEDS = ("iex", "sip", "delayed_sip", "otc", "boats", "overnight")
_ADJUSTMENTS = {"raw", "split", "dividend", "spin-off", "all"}

Params = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Range:
    """A slice of history.

    Args:
        symbols: Whose, in upper case, each once.
        start_ns: First time, inclusive.
        end_ns: Last time, inclusive, not after now.
        limit: Most items of a page.
        descending: Newest first.
        token: Where the page begins.
    """

    symbols: tuple[str, ...]
    start_ns: int
    end_ns: int
    limit: int
    descending: bool
    token: str | None

    @classmethod
    def of(
        cls, asked: Params, *, symbols: tuple[str, ...], now_ns: int,
        limit: int = 1000, most: int = MAX_LIMIT,
    ) -> Range:  # fmt: skip
        """The range of a request; by default from midnight in New York until now.

        Raises:
            Refused: A parameter makes no sense.
        """
        start_ns = time_of(asked, "start", default=midnight_ns(now_ns))
        end_ns = min(time_of(asked, "end", default=now_ns), now_ns)
        if "start" in asked and "end" in asked and start_ns > time_of(asked, "end", default=now_ns):
            raise Refused(400, "end should not be before start")
        sort = asked.get("sort", "asc").lower()
        if sort not in ("asc", "desc"):
            raise Refused(400, f"invalid sort: {sort}")
        return cls(
            symbols=symbols,
            start_ns=start_ns,
            end_ns=end_ns,
            limit=number(asked, "limit", default=limit, most=most),
            descending=sort == "desc",
            token=asked.get("page_token") or None,
        )


def symbols_of(asked: Params, *, required: bool = True) -> tuple[str, ...]:
    """The symbols of a request.

    >>> symbols_of({"symbols": "SPY,aapl,SPY"})
    ('SPY', 'AAPL')

    Raises:
        Refused: None is named although one must be, or one is no symbol.
    """
    names = dict.fromkeys(s.strip().upper() for s in asked.get("symbols", "").split(",") if s)
    if required and not names:
        raise Refused(400, "symbols is required")
    for name in names:
        if not name or not all(c.isalnum() or c in "./-" for c in name):
            raise Refused(400, f"invalid symbol: {name}")
    return tuple(names)


def check_stock_parameters(asked: Params, *, feeds: tuple[str, ...]) -> None:
    """Refuse what the vendor would refuse; what changes nothing here is accepted.

    There are no splits, dividends or renamed symbols in this market, so every adjustment and
    every ``asof`` gives the same numbers.

    Raises:
        Refused: A parameter makes no sense, or the feed is not part of the plan.
    """
    feed = asked.get("feed", "iex").lower()
    if feed not in _FEEDS:
        raise Refused(400, f"invalid feed: {feed}")
    if feed in ("sip", "delayed_sip") and "sip" not in feeds:
        raise Refused(403, "subscription does not permit querying recent SIP data")
    if feed in ("otc", "boats", "overnight"):
        raise Refused(403, f"subscription does not permit querying {feed} data")
    adjustments = set(asked.get("adjustment", "raw").lower().split(","))
    if not adjustments <= _ADJUSTMENTS:
        raise Refused(400, f"invalid adjustment: {asked['adjustment']}")
    if asked.get("currency", "USD").upper() != "USD":
        raise Refused(400, f"invalid currency: {asked['currency']}; this market trades in USD")
    if (asof := asked.get("asof", "-")) != "-":
        date_ns(asof, "asof")


def time_of(asked: Params, name: str, *, default: int) -> int:
    """A moment: RFC 3339 with up to nine decimals, or a day of New York.

    A day as ``start`` is its first moment, as ``end`` its last.

    Raises:
        Refused: It is neither.
    """
    text = asked.get(name, "")
    if not text:
        return default
    if len(text) == 10:
        return date_ns(text, name, last=name in ("end", "until"))
    try:
        # A plus sign that nobody escaped; and no moment before those that nanoseconds can count.
        return max(parse_time_ns(text.replace(" ", "+")), _FIRST_NS)
    except ValueError as wrong:
        raise Refused(400, f"invalid {name}: {text}") from wrong


def date_ns(text: str, name: str, *, last: bool = False) -> int:
    """First or last moment of a day in New York.

    >>> date_ns("2024-07-04", "end", last=True) - date_ns("2024-07-04", "end")
    86399999999999

    Raises:
        Refused: The text is no day.
    """
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=NEW_YORK)
        if last:
            return int((day + timedelta(days=1)).timestamp()) * SECOND_NS - 1
        return int(day.timestamp()) * SECOND_NS
    except (ValueError, OverflowError) as wrong:
        raise Refused(400, f"invalid {name}: {text}") from wrong


def number(asked: Params, name: str, *, default: int, most: int) -> int:
    """A number from 1 to ``most``.

    Raises:
        Refused: It is none.
    """
    text = asked.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
        raise Refused(400, f"{name} must be a number between 1 and {most}, got {text}")
    return int(text)


def flag(asked: Params, name: str) -> bool:
    """Whether a parameter says yes.

    Raises:
        Refused: It says neither yes nor no.
    """
    text = asked.get(name, "false").lower()
    if text not in ("true", "false", "1", "0"):
        raise Refused(400, f"{name} must be true or false, got {text}")
    return text in ("true", "1")
