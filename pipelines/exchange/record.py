"""The exchange's own tape: everything it published, once, whoever listened. The tests' oracle.

A disk that takes no more ends the tape, not the market: what was written stays whole, the tape says
why it stopped, and tries again every few seconds, with a note of the gap.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.errors import TapeFailed
from pipelines.events import SECOND_NS
from pipelines.exchange.frames import Batch, packed_frame
from pipelines.tape import TapeHeader, TapeWriter

_LOG = logging.getLogger(__name__)

_AGAIN_NS = 10 * SECOND_NS
"""Wall time between two tries to go on."""


class Tape:
    """A tape (:mod:`pipelines.tape`) that takes whole batches, packed as for a msgpack client.

    Args:
        folder: Where its files are.
        header: First line of each.
        max_mb: Disk that all of them may take, MiB.

    Attributes:
        stopped: Why nothing is recorded; ``None`` while all is well.

    Raises:
        TapeFailed: It cannot be begun.
    """

    def __init__(self, folder: Path, *, header: TapeHeader, max_mb: int) -> None:
        self._writer = TapeWriter(folder, header=header, max_mb=max_mb)
        self._again_ns = 0
        self._taken = 0
        self.stopped: str | None = None

    def write(self, batch: Batch, *, wall_ns: int) -> None:
        """Add the messages of a batch."""
        self._taken += len(batch)
        if self.stopped is None:
            packed = packed_frame(batch.packed())
            self._try(
                lambda: self._writer.write_packed(packed, len(batch), wall_ns=wall_ns), wall_ns
            )

    def write_raw(self, frame: bytes, *, wall_ns: int) -> None:
        """Add a frame that is no message."""
        if self.stopped is None:
            self._try(lambda: self._writer.write_raw(frame, wall_ns=wall_ns), wall_ns)

    def flush_if_due(self, wall_ns: int) -> None:
        """Bring to disk what has waited long enough; after a failure, try to go on."""
        if self.stopped is None:
            self._try(lambda: self._writer.flush_if_due(wall_ns), wall_ns)
        elif wall_ns >= self._again_ns:
            reason = self.stopped
            if self._try(lambda: self._writer.go_on(reason=reason, wall_ns=wall_ns), wall_ns):
                self.stopped = None
                _LOG.warning("the tape goes on; it lacks %d messages", self.lost)

    def close(self) -> None:
        """Bring everything to disk and end the file."""
        self._try(self._writer.close, self._again_ns)

    @property
    def lost(self) -> int:
        """Messages that were published and are not on it."""
        return self._taken - self._writer.messages

    def stats(self) -> dict[str, Any]:
        """Messages written and lost, files dropped for the budget, bytes on disk."""
        return {**self._writer.stats(), "lost": self.lost, "stopped": self.stopped}

    def _try(self, write: Callable[[], None], wall_ns: int) -> bool:
        try:
            write()
        except TapeFailed as failed:
            if self.stopped is None:
                _LOG.error("the tape stops, the market goes on: %s", failed)
            self.stopped = str(failed)
            self._again_ns = wall_ns + _AGAIN_NS
            return False
        return True
