"""The exchange's own tape: everything it published, once, whoever listened. The tests' oracle."""

from __future__ import annotations

from pipelines.exchange.frames import Batch
from pipelines.tape import TapeWriter


class Tape(TapeWriter):
    """A tape (:mod:`pipelines.tape`) that takes whole batches, already encoded."""

    def write(self, batch: Batch, *, wall_ns: int) -> None:
        """Add the messages of a batch."""
        stamp = b'","w":%d,"m":' % wall_ns
        heads: dict[str, bytes] = {}
        lines: list[bytes] = []
        n_bytes = 0
        for (channel, _), text in zip(batch.keys, batch.json(), strict=True):
            head = heads.get(channel)
            if head is None:
                head = heads[channel] = b'{"c":"' + channel.encode() + stamp
            lines.append(head + text + b"}\n")
            n_bytes += len(text)
        self.add_lines(lines, n_bytes=n_bytes, wall_ns=wall_ns)
