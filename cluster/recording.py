"""``raytape record``: everything that the feed sends, to a tape, until it is enough."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from cluster import producing
from cluster.settings import Settings
from pipelines.clock import wall_ns
from pipelines.errors import ConfigError
from pipelines.ingest.config import ProducerConfig
from pipelines.ingest.recorder import Recorder, header_of
from pipelines.ingest.subscriptions import NEWS_CHANNEL
from pipelines.tape import TapeWriter

_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600}
_SHOW_EVERY_S = 5.0


def seconds_of(text: str) -> float:
    """Seconds of a duration.

    Raises:
        ConfigError: It is none.

    >>> seconds_of("90"), seconds_of("1.5m"), seconds_of("6h")
    (90.0, 90.0, 21600.0)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if match is None or float(match[1]) == 0:
        raise ConfigError(f"{text!r} is no duration; for example 60s, 10m or 6h")
    return float(match[1]) * _UNITS_S[match[2]]


def config_of(settings: Settings, *, channels: str | None) -> ProducerConfig:
    """What is recorded; the news come from a feed of their own.

    Raises:
        ConfigError: A channel that there is not, or news beside others.
    """
    config = producing.config(settings)
    # Our exchange serves any number of connections; Alpaca one for each key and feed.
    config = replace(config, lock_dir=config.lock_dir if settings.live else None, fallbacks=())
    if channels is None:
        return config
    asked = tuple(c.strip() for c in channels.split(",") if c.strip())
    if NEWS_CHANNEL not in asked:
        return replace(config, channels=asked, channel_symbols={})
    news = config.news()
    if asked != (NEWS_CHANNEL,) or news is None:
        raise ConfigError("the news are a feed of their own: record them alone, --channels news")
    return news


def record(
    settings: Settings,
    *,
    channels: str | None,
    out: Path | None,
    duration: str | None,
    max_mb: int,
    console: Console,
) -> dict[str, Any]:
    """Record until the time is over, or a signal comes.

    Args:
        settings: Of the platform; live or our exchange.
        channels: Which, with commas between them; by default the producer's.
        out: Folder of the tape; by default one named after the moment.
        duration: How long, for example ``10m``; without it until Ctrl-C.
        max_mb: Disk that the tape may take; then its oldest part goes.
        console: Where to tell how it goes.

    Returns:
        What was recorded.

    Raises:
        ConfigError: A setting makes no sense.
        FeedFatal: The feed refuses us for good.
    """
    config = config_of(settings, channels=channels)
    seconds = seconds_of(duration) if duration else None
    folder = out or settings.var_dir / "tapes" / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    tape = TapeWriter(folder, header=header_of(config, started_ns=wall_ns()), max_mb=max_mb)
    recorder = Recorder(config, tape)
    console.print(f"recording {config.url} to {folder}; Ctrl-C ends it")
    over = threading.Event()
    try:
        with _signals(recorder), _timer(recorder, seconds), _progress(recorder, console, over):
            recorder.run()
    finally:
        tape.close()
    found = {**recorder.stats(), **tape.stats(), "folder": str(folder)}
    console.print(
        f"{found['messages']} messages, {found['gaps']} gaps, {found['bytes']} bytes in {folder}"
    )
    return found


@contextmanager
def _signals(recorder: Recorder) -> Iterator[None]:
    before = {
        number: signal.signal(number, lambda *_: recorder.stop())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _timer(recorder: Recorder, seconds: float | None) -> Iterator[None]:
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, recorder.stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _progress(recorder: Recorder, console: Console, over: threading.Event) -> Iterator[None]:
    def show() -> None:
        while not over.wait(_SHOW_EVERY_S):
            stats = recorder.stats()
            problem = f" ({stats['problem']})" if stats["problem"] else ""
            console.print(f"{stats['state']}: {stats['messages']} messages{problem}")

    thread = threading.Thread(target=show, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
