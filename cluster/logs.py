"""The logs of all parts, together."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from pipelines.errors import ConfigError

POLL_S = 0.3


def show(folder: Path, *, part: str | None, follow: bool, lines: int, console: Console) -> None:
    """Print the last lines of every log, then follow.

    Args:
        folder: Where the logs are.
        part: Only this part; ``None`` for all.
        follow: Whether to go on as lines are written.
        lines: How many lines of each log to begin with.
        console: Where to print.

    Raises:
        ConfigError: There is no log (of that name).
    """
    paths = _logs(folder, part)
    if not paths:
        known = ", ".join(p.stem for p in _logs(folder, None)) or "none yet; run `raytape up`"
        raise ConfigError(f"no log of {part or 'any part'} under {folder} (there are: {known})")
    offsets: dict[Path, int] = {}
    for path in paths:
        with path.open(errors="replace") as file:
            for line in deque(file, maxlen=lines):
                _print(console, path.stem, line)
            offsets[path] = file.tell()
    while follow:
        for path in _logs(folder, part):
            with path.open(errors="replace") as file:
                start = offsets.get(path, 0)
                file.seek(start if start <= path.stat().st_size else 0)
                for line in file:
                    _print(console, path.stem, line)
                offsets[path] = file.tell()
        time.sleep(POLL_S)


def _logs(folder: Path, part: str | None) -> list[Path]:
    return sorted(p for p in folder.glob("*.log") if part in (None, p.stem))


def _print(console: Console, part: str, line: str) -> None:
    console.print(f"[cyan]{part:>10}[/] {escape(line.rstrip())}", soft_wrap=True)
