"""The exchange's own tape: everything it published, once, whoever listened. The tests' oracle."""

from __future__ import annotations

from pipelines.exchange.frames import Batch, packed_frame
from pipelines.tape import TapeWriter


class Tape(TapeWriter):
    """A tape (:mod:`pipelines.tape`) that takes whole batches, packed as for a msgpack client."""

    def write(self, batch: Batch, *, wall_ns: int) -> None:
        """Add the messages of a batch."""
        self.write_packed(packed_frame(batch.packed()), len(batch), wall_ns=wall_ns)
