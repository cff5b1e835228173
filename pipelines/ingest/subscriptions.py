"""Which symbols are subscribed on which channel, and who of several producers takes which.

Also the small file that keeps what was changed at run time, so that a restart does not undo it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pipelines.errors import ConfigError
from pipelines.events import bucket_of
from pipelines.ingest import files

log = logging.getLogger(__name__)

CHANNELS = (
    "trades", "quotes", "bars", "updatedBars", "dailyBars", "statuses", "lulds", "imbalances",
)  # fmt: skip
"""Channels of a stock feed that can be asked for; corrections and cancels come with trades."""

NEWS_CHANNEL = "news"
ALL = "*"

Subscriptions = Mapping[str, Sequence[str]]
"""Per channel, its symbols, each once."""


def tidy(subscriptions: Subscriptions) -> dict[str, tuple[str, ...]]:
    """Each symbol once, no empty channel.

    Raises:
        ConfigError: A channel that no stock feed has.

    >>> tidy({"trades": ["SPY", "SPY"], "bars": []})
    {'trades': ('SPY',)}
    """
    for channel in subscriptions:
        if channel not in CHANNELS and channel != NEWS_CHANNEL:
            raise ConfigError(
                f"RAYTAPE_CHANNELS: unknown channel {channel!r}; one of {', '.join(CHANNELS)}"
            )
    return {c: tuple(dict.fromkeys(has)) for c, has in subscriptions.items() if has}


def symbols_of(subscriptions: Subscriptions) -> tuple[str, ...]:
    """All symbols, in the order of their first mention.

    >>> symbols_of({"trades": ["SPY"], "bars": ["AAPL", "SPY"]})
    ('SPY', 'AAPL')
    """
    return tuple(dict.fromkeys(s for symbols in subscriptions.values() for s in symbols))


def with_symbols(
    subscriptions: Subscriptions, symbols: Iterable[str]
) -> dict[str, tuple[str, ...]]:
    """The same channels, each with these symbols."""
    return tidy(dict.fromkeys(subscriptions, tuple(symbols)))


def share(subscriptions: Subscriptions, index: int, count: int) -> dict[str, tuple[str, ...]]:
    """The part of producer ``index`` of ``count``: symbols whose bucket is its own modulo count.

    Raises:
        ConfigError: ``*`` cannot be shared.

    >>> [share({"trades": ["AAPL", "SPY"]}, i, 2) for i in range(2)]  # buckets 28 and 63
    [{'trades': ('AAPL',)}, {'trades': ('SPY',)}]
    """
    if count == 1:
        return tidy(subscriptions)
    if ALL in symbols_of(subscriptions):
        raise ConfigError("RAYTAPE_PRODUCERS: several producers cannot share '*'; name the symbols")
    return tidy({
        channel: [s for s in symbols if bucket_of(s) % count == index]
        for channel, symbols in subscriptions.items()
    })  # fmt: skip


def save(path: Path, wanted: Subscriptions, *, configured: Subscriptions) -> None:
    """Keep what was asked at run time, beside what the settings asked when it was."""
    kept = {"configured": tidy(configured), "wanted": dict(wanted)}
    files.replace_text(path, json.dumps(kept))


def load(path: Path, *, configured: Subscriptions) -> dict[str, tuple[str, ...]]:
    """What was asked last; the settings' own where nothing was, or where they changed since."""
    chosen = tidy(configured)
    try:
        kept = json.loads(path.read_text())
        if {c: tuple(has) for c, has in kept["configured"].items()} == chosen:
            return tidy({c: tuple(map(str, has)) for c, has in kept["wanted"].items()})
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
        log.warning("%s is no list of subscriptions, the settings' own is used: %r", path, error)
    return chosen
