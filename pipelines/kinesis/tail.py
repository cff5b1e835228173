"""What a stream holds after given positions, as an object that a producer can be handed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pipelines.kinesis.reader import read_after
from pipelines.ports import KinesisConfig


class StreamTail:
    """A :class:`~pipelines.ports.TailReader` of one stream.

    Args:
        config: Where the streams are.
        stream: Name of the stream.
    """

    def __init__(self, config: KinesisConfig, stream: str) -> None:
        self._config = config
        self._stream = stream

    def read_after(self, positions: Mapping[str, str]) -> Iterator[bytes]:
        """Data of every record after the positions, up to the tip, in order within a shard."""
        return read_after(self._config, self._stream, positions)
