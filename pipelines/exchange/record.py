"""The exchange's own tape: everything it published, once, whoever listened. The tests' oracle."""

from __future__ import annotations

from pipelines.exchange.frames import Batch
from pipelines.tape import TapeWriter


class Tape(TapeWriter):
    """A tape (:mod:`pipelines.tape`) that takes whole batches, already encoded."""

    def write(self, batch: Batch, *, wall_ns: int) -> None:
        """Add the messages of a batch."""
        stamp = b'","w":%d,"m":' % wall_ns
        heads = {channel: b'{"c":"' + channel.encode() + stamp for channel, _ in batch.audience}
        texts = batch.json()
        lines = [
            heads[channel] + text + b"}\n"
            for (channel, _), text in zip(batch.keys, texts, strict=True)
        ]
        self.add_lines(lines, n_bytes=sum(map(len, lines)), wall_ns=wall_ns)
