"""Where the market stands, kept over restarts so that no moment of it is played twice."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

import orjson

from pipelines.errors import ConfigError

_LOG = logging.getLogger(__name__)
_FULL = (errno.ENOSPC, errno.EDQUOT)


class PlayedMinutes:
    """The last minute that was begun, per market; written before the minute's first message.

    A crash inside a minute therefore loses the rest of that minute and repeats nothing. The file
    is replaced in one step, so it is whole after the death of the process. When the disk is
    full the market goes on, and a restart would repeat what came since.

    Args:
        path: The file; ``None`` remembers nothing.

    Raises:
        ConfigError: The file is there but is not ours.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._last: dict[str, int] = {}
        self._unwritten = False
        if path is not None and path.is_file():
            try:
                self._last = {str(k): int(v) for k, v in orjson.loads(path.read_bytes()).items()}
            except (ValueError, AttributeError, TypeError) as error:
                raise ConfigError(
                    f"exchange state_path={path}: cannot be read ({error}); remove it to begin anew"
                ) from error

    def last(self, market: str) -> int | None:
        """Start of the last minute begun of a market, ns, or ``None``."""
        return self._last.get(market)

    def begin(self, market: str, start_ns: int) -> None:
        """Write down that a minute begins."""
        self._last[market] = start_ns
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._path.with_name(self._path.name + ".new")
            fresh.write_bytes(orjson.dumps(self._last))
            fresh.replace(self._path)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            if not self._unwritten:
                _LOG.error("the minutes played are not written, a restart repeats them: %s", error)
            self._unwritten = True
            return
        self._unwritten = False
