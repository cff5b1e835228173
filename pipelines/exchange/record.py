"""The tape: everything the exchange published, once, whoever listened. It is the tests' oracle.

Files of gzip-compressed JSON lines, ``{"c": channel, "w": wall ns of publication, "m": message}``;
a raw frame (a fault on purpose) is ``{"c": "raw", "w": …, "b64": …}``. The newest files stay within
a budget of disk; what was dropped is counted.
"""

from __future__ import annotations

import base64
import logging
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from pipelines.events import SECOND_NS, Message
from pipelines.exchange.frames import Batch

_LOG = logging.getLogger(__name__)

RAW = "raw"
_GZIP = 31
_FLUSH_BYTES = 256 * 1024
_FLUSH_NS = SECOND_NS // 4
_FILES = 8


class Tape:
    """Writes the tape of one exchange run, after those of earlier runs.

    What was published is on disk a quarter of a second later, provided that :meth:`flush_if_due`
    is called in between.

    Args:
        folder: Where its files are.
        max_mb: Disk that all of them may take, MiB.
    """

    def __init__(self, folder: Path, *, max_mb: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._file_bytes = max_mb * 1024 * 1024 // _FILES
        self._budget_bytes = max_mb * 1024 * 1024
        self._lines: list[bytes] = []
        self._waiting = 0
        self._flushed_ns = 0
        self.messages = 0
        self.dropped_files = 0
        self._number = max((_number(p) for p in tape_files(folder)), default=0)
        self._open_next()

    def write(self, batch: Batch, *, wall_ns: int) -> None:
        """Add the messages of a batch."""
        stamp = b'","w":%d,"m":' % wall_ns
        heads: dict[str, bytes] = {}
        lines = self._lines
        for (channel, _), text in zip(batch.keys, batch.json(), strict=True):
            head = heads.get(channel)
            if head is None:
                head = heads[channel] = b'{"c":"' + channel.encode() + stamp
            lines.append(head + text + b"}\n")
            self._waiting += len(text)
        self.messages += len(batch)
        if self._waiting >= _FLUSH_BYTES:
            self._write_out(wall_ns)

    def write_raw(self, frame: bytes, *, wall_ns: int) -> None:
        """Add a frame that is no message."""
        line = {"c": RAW, "w": wall_ns, "b64": base64.b64encode(frame).decode()}
        self._lines.append(orjson.dumps(line) + b"\n")
        self._waiting += len(frame)

    def flush_if_due(self, wall_ns: int) -> None:
        """Bring to disk what has waited long enough."""
        if self._lines and wall_ns - self._flushed_ns >= _FLUSH_NS:
            self._write_out(wall_ns)

    def close(self) -> None:
        """Bring everything to disk and end the file."""
        if not self._file.closed:
            self._write_out(self._flushed_ns)
            self._file.write(self._gzip.flush(zlib.Z_FINISH))
            self._file.close()

    def stats(self) -> dict[str, Any]:
        """Messages written, files dropped for the budget, bytes on disk."""
        size = sum(p.stat().st_size for p in tape_files(self._folder))
        return {"messages": self.messages, "dropped_files": self.dropped_files, "bytes": size}

    def _write_out(self, wall_ns: int) -> None:
        data = self._gzip.compress(b"".join(self._lines)) + self._gzip.flush(zlib.Z_SYNC_FLUSH)
        self._lines.clear()
        self._waiting = 0
        self._flushed_ns = wall_ns
        self._file.write(data)
        self._written += len(data)
        if self._written >= self._file_bytes:
            self._file.write(self._gzip.flush(zlib.Z_FINISH))
            self._file.close()
            self._open_next()

    def _open_next(self) -> None:
        self._number += 1
        self._written = 0
        self._gzip = zlib.compressobj(level=1, wbits=_GZIP)
        self._file: BinaryIO = (self._folder / f"tape-{self._number:06d}.jsonl.gz").open("wb", 0)
        files = tape_files(self._folder)
        sizes = [p.stat().st_size for p in files]
        while len(files) > 1 and sum(sizes) > self._budget_bytes - self._file_bytes:
            oldest = files.pop(0)
            sizes.pop(0)
            oldest.unlink()
            self.dropped_files += 1
            _LOG.warning("tape over its budget: dropped %s", oldest.name)


def tape_files(folder: Path) -> list[Path]:
    """The files of a tape, oldest first."""
    return sorted(folder.glob("tape-*.jsonl.gz"))


def read_tape(folder: Path) -> Iterator[Message]:
    """The messages of a tape in the order of their publication (raw frames are left out)."""
    for entry in read_entries(folder):
        if entry["c"] != RAW:
            yield entry["m"]


def read_entries(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of a tape, as the module describes them; channel "" is a message of no known type.

    A file that is being written, or was cut by a crash, is read as far as it goes.
    """
    for path in tape_files(folder):
        inflate = zlib.decompressobj(wbits=_GZIP)
        rest = b""
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                *lines, rest = (rest + inflate.decompress(chunk)).split(b"\n")
                for line in lines:
                    yield orjson.loads(line)


def _number(path: Path) -> int:
    return int(path.name.removeprefix("tape-").split(".")[0])
