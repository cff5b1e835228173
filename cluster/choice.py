"""What `raytape up` was asked for, kept for the other commands, which must look at the same run.

One JSON file under ``var``; no secret is in it. A replay, and Alpaca itself, get a *run* of their
own: streams, lake, checkpoints and producer state apart from those of the synthetic market, so
that two markets never mix in one lake.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from cluster.settings import Settings
from pipelines.errors import ConfigError

FILE = "last.json"
KEPT = ("replay", "speed", "symbols", "live", "feed", "run")


def run_of(settings: Settings, *, now: datetime | None = None) -> str | None:
    """Name of the run that the settings ask for; ``None`` is the synthetic market's own.

    Raises:
        ConfigError: A replay would go into a run that has data already.
    """
    if settings.replay is not None:
        if settings.run is None:
            stamp = (now or datetime.now(UTC)).strftime("%Y%m%d-%H%M%S")
            return f"{settings.replay.stem}-{stamp}"
        if settings.data_dir.exists():
            raise ConfigError(
                f"RAYTAPE_RUN={settings.run!r} has data already ({settings.data_dir}); a replay "
                "needs a run of its own: choose another name, or leave it out"
            )
    elif settings.feed == "test" and settings.run is None:
        return "test"  # by the wall clock, and of no real market: beside nothing else
    elif settings.live and settings.run is None:
        return "live"
    return settings.run


def remember(settings: Settings) -> None:
    """Keep what `up` was asked for."""
    chosen: dict[str, Any] = {name: getattr(settings, name) for name in KEPT}
    settings.var_dir.mkdir(parents=True, exist_ok=True)
    path = settings.var_dir / FILE
    draft = path.with_suffix(".tmp")
    draft.write_bytes(orjson.dumps(chosen, default=str, option=orjson.OPT_INDENT_2))
    draft.rename(path)


def remembered(var_dir: Path) -> Mapping[str, Any]:
    """What the last `up` was asked for; empty when there was none."""
    path = var_dir / FILE
    chosen: dict[str, Any] = orjson.loads(path.read_bytes()) if path.exists() else {}
    replay = chosen.get("replay")
    if replay is not None and not Path(replay).exists():
        chosen["replay"] = None  # moved away since; its run can still be looked at
    return chosen


@contextmanager
def exclusive(settings: Settings) -> Iterator[None]:
    """Hold the platform's lock: one `up` or `down` at a time.

    Raises:
        ConfigError: Another one is at work.
    """
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    with (settings.run_dir / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"another `raytape up` or `down` is at work in {settings.var_dir}; wait for it"
            ) from error
        yield
