"""The entries of a fault script, read and checked: :mod:`pipelines.exchange.faults` has the table.

In: JSON. Out: :class:`~pipelines.exchange.faults.Fault`. What is wrong is refused by its place, its
field and its value, with what is needed instead.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from pipelines.errors import ConfigError
from pipelines.events import SECOND_NS
from pipelines.exchange.accounts import FEEDS
from pipelines.exchange.faults import Fault
from pipelines.exchange.session import ERRORS

HANDSHAKE_CODES = (401, 402, 403, 429, 500, 502, 503, 504)
"""What a refused handshake can answer over HTTP."""

_UNITS = {"ms": SECOND_NS // 1000, "s": SECOND_NS, "m": 60 * SECOND_NS, "h": 3600 * SECOND_NS,
          "d": 86_400 * SECOND_NS}  # fmt: skip
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d):([0-5]\d)")
_COMMON = frozenset({"at", "every", "times", "do", "feed", "symbols"})


class _Wrong(ValueError):
    """A field's value is wrong; says what is needed."""


def load_faults(path: Path) -> tuple[Fault, ...]:
    """The faults of a file.

    Raises:
        ConfigError: It cannot be read, or an entry is wrong; names entry, field and value.
    """
    try:
        document = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise ConfigError(f"faults {path}: cannot be read: {error}") from error
    return parse_faults(document, source=f"faults {path}")


def parse_faults(document: object, *, source: str) -> tuple[Fault, ...]:
    """The faults of a JSON document.

    Raises:
        ConfigError: An entry is wrong; the message names source, entry, field and value.

    >>> parse_faults([{"do": "mute", "at": "+1m"}], source="f")[0].at_ns // SECOND_NS
    60
    >>> parse_faults([{"do": "mute", "every": "x"}], source="f")
    Traceback (most recent call last):
    pipelines.errors.ConfigError: f, entry 1 (mute), every='x': must be a duration like 500ms or 5m
    """
    if not isinstance(document, list):
        raise ConfigError(
            f'{source}: must be an array of entries like [{{"at":"+30s","do":"drop"}}]'
        )
    return tuple(_parse(entry, f"{source}, entry {n}") for n, entry in enumerate(document, 1))


def _parse(entry: object, where: str) -> Fault:
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: must be an object with a field do")
    do = entry.get("do")
    if not isinstance(do, str) or do not in _PARAMETERS:
        raise ConfigError(f"{where}, do={do!r}: must be one of {', '.join(_PARAMETERS)}")
    where = f"{where} ({do})"
    takes = _PARAMETERS[do]
    unknown = entry.keys() - _COMMON - takes.keys()
    if unknown:
        usable = ", ".join(sorted(_COMMON | takes.keys()))
        raise ConfigError(f"{where}: unknown field {', '.join(sorted(unknown))}; usable: {usable}")

    def read(name: str, check: Callable[[Any], Any], default: Any) -> Any:
        try:
            return check(entry[name]) if name in entry else default
        except _Wrong as wrong:
            raise ConfigError(f"{where}, {name}={entry[name]!r}: must be {wrong}") from None

    clock, at_ns = read("at", _moment, ("wall", 0))
    every_ns = read("every", _duration, None)
    feed = read("feed", _feed, None)
    if do in MARKET_FAULTS and feed is not None:
        raise ConfigError(f"{where}, feed={feed!r}: is published, so it is on every feed; leave it")
    parameters = {n: read(n, check, default) for n, (check, default) in takes.items()}
    if do in ("refuse", "error"):
        _check_code(where, do, parameters)
    if "times" in entry and every_ns is None:
        raise ConfigError(f'{where}, times={entry["times"]!r}: needs every, like "every": "10s"')
    return Fault(
        do=do,
        clock=clock,
        at_ns=at_ns,
        every_ns=every_ns,
        times=read("times", _count, None if every_ns else 1),
        lasts_s=parameters.pop("for_s", 0.0),
        feed=feed,
        symbols=read("symbols", _symbols, frozenset()),
        parameters=parameters,
        entry=entry,
    )


def _check_code(where: str, do: str, parameters: dict[str, Any]) -> None:
    code = parameters["code"]
    if do == "error":
        good: tuple[int, ...] = tuple(ERRORS)
    else:
        if parameters["where"] is None:
            place = "subscribe" if code in (405, 410) else "auth"
            parameters["where"] = place if code in ERRORS else "handshake"
        good = HANDSHAKE_CODES if parameters["where"] == "handshake" else tuple(ERRORS)
    if code not in good:
        raise ConfigError(f"{where}, code={code!r}: must be one of {', '.join(map(str, good))}")


def _moment(value: Any) -> tuple[str, int]:
    text = value if isinstance(value, str) else ""
    if time := _TIME.fullmatch(text):
        hours, minutes, seconds = map(int, time.groups())
        return "day", (hours * 3600 + minutes * 60 + seconds) * SECOND_NS
    clock, plus, rest = text.partition("+")
    if not plus or clock not in ("", "open") or not _DURATION.fullmatch(rest):
        raise _Wrong("like +30s, open+5m or 13:45:00")
    return clock or "wall", _duration(rest)


def _duration(value: Any) -> int:
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise _Wrong("a duration like 500ms or 5m")
    return int(float(found[1]) * _UNITS[found[2]])


def _number(least: float = 0.0, most: float = 1e9) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        if type(value) not in (int, float) or not least < value <= most:
            raise _Wrong(f"a number above {least:g}, {most:g} at most")
        return float(value)

    return check


def _count(value: Any) -> int:
    if type(value) is not int or not 0 < value <= 1_000_000:
        raise _Wrong("a number between 1 and 1000000")
    return value


def _code(value: Any) -> int:
    if type(value) is not int:
        raise _Wrong("a code like 406")
    return value


def _close_code(value: Any) -> int:
    if type(value) is not int or not (1000 <= value <= 1014 or 3000 <= value <= 4999):
        raise _Wrong("a close code of a websocket, like 1001")
    return value


def _where(value: Any) -> str:
    if value not in ("handshake", "auth", "subscribe"):
        raise _Wrong("handshake, auth or subscribe")
    return str(value)


def _feed(value: Any) -> str:
    if value not in FEEDS:
        raise _Wrong(f"one of {', '.join(FEEDS)}")
    return str(value)


def _symbols(value: Any) -> frozenset[str]:
    if not isinstance(value, list) or not value or not all(isinstance(s, str) for s in value):
        raise _Wrong('a list of symbols like ["AAPL"]')
    return frozenset(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise _Wrong("text")
    return value


def _base64(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise _Wrong("bytes in base64") from None


def _prices(value: Any) -> tuple[Any, ...]:
    named = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}
    if not isinstance(value, list) or not value:
        raise _Wrong('a list like ["nan", 0, -1]')
    return tuple(named.get(v, v) if isinstance(v, str) else v for v in value)


_Takes = dict[str, tuple[Callable[[Any], Any], Any]]
_PARAMETERS: dict[str, _Takes] = {
    "drop": {"close_code": (_close_code, None)},
    "half_frame": {},
    "mute": {"for_s": (_number(), 60.0)},
    "refuse": {"code": (_code, None), "where": (_where, None), "for_s": (_number(), 60.0)},
    "error": {"code": (_code, None)},
    "garbage": {"frames": (_count, 3), "b64": (_base64, None)},
    "delay": {"delay_s": (_number(most=3600), 1.0), "for_s": (_number(), 10.0)},
    "duplicate": {"share": (_number(most=1), 1.0), "for_s": (_number(), 10.0)},
    "disorder": {"for_s": (_number(), 10.0)},
    "slow": {"messages_per_s": (_number(), 100.0), "for_s": (_number(), 10.0)},
    "skew": {"skew_s": (_number(least=-1e9), 5.0), "for_s": (_number(), 10.0)},
    "halt": {"reason": (_text, "T12"), "for_s": (_number(), 60.0)},
    "burst": {"messages": (_count, 10_000)},
    "correction": {"change_bps": (_number(least=-1e4), 10.0)},
    "cancel": {},
    "updated_bar": {"change_bps": (_number(least=-1e4), 10.0)},
    "bad_price": {"values": (_prices, (None, float("nan"), float("inf"), 0, -1))},
    "unknown_type": {"messages": (_count, 1)},
}
"""Fields of each kind of fault, with their check and their default."""

MARKET_FAULTS = frozenset(
    {"skew", "halt", "burst", "correction", "cancel", "updated_bar", "bad_price", "unknown_type"}
)
"""The faults that are published, and so are on the tape."""
