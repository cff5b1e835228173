"""Asking the exchange for its market clock."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from pipelines.clock import LIVE, MarketClock
from pipelines.errors import FeedTransient

POLL_S = 0.05


def fetch_clock(
    url: str | None,
    *,
    timeout_s: float,
    stopped: Callable[[], bool] = lambda: False,
    sleep: Callable[[float], None] = time.sleep,
) -> MarketClock:
    """The announced market clock; waits while the market has not been opened.

    Args:
        url: Address of the announcement, or ``None`` for the clock of a live market.
        timeout_s: Longest wait.
        stopped: Whether to give up at once.
        sleep: How to wait between two questions.

    Raises:
        FeedTransient: No clock was announced in time.
    """
    if url is None:
        return LIVE
    deadline = time.monotonic() + timeout_s
    while not stopped() and (left := deadline - time.monotonic()) > 0:
        try:
            with urllib.request.urlopen(url, timeout=left) as answer:  # noqa: S310 (a setting)
                announced = json.load(answer)
            if announced.get("clock"):
                return MarketClock.from_dict(announced["clock"])
        except (urllib.error.URLError, OSError) as error:
            raise FeedTransient(f"no market clock from {url}: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FeedTransient(f"{url} announces no market clock: {error!r}") from error
        sleep(POLL_S)
    raise FeedTransient(f"the market did not open within {timeout_s:.0f} s ({url})")
