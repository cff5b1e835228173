"""A bounded journal of sealed records on disk: appended in order, read back by place.

A segment is a file of blocks. A block holds a few records of one run, compressed together, with
what is needed to account for them without reading their data; it carries a CRC. A kill in the
middle of a write leaves a torn last block, which is passed over: its records were never put,
because a record is put after it stands here. A block that cannot be read between others is
passed over too, and a copy of its file is kept aside (``.unreadable``). Segments are dropped as a
whole, oldest first. One thread at a time; the owner locks.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import orjson

from pipelines import codec
from pipelines.errors import ConfigError
from pipelines.ingest.gaps import account
from pipelines.ports import Put, Shelved

log = logging.getLogger(__name__)

SUFFIX = ".journal"
MAGIC = b"RTJ1"
HEADER = struct.Struct(">4sIII")
"""Magic, CRC-32 of the rest, bytes of the index, bytes of the data."""

LEVEL = 1
"""zlib's fastest: 180 MB/s on the laptop it was chosen on, a fifth of the size."""

BLOCK_BYTES = 256 * 1024
SEGMENT_BYTES = 16_000_000
CACHED_BLOCKS = 16
ASIDE, MAX_ASIDE = ".unreadable", 4
"""Suffix of the files that are kept for people to look at, and how many of them are."""

Lane = tuple[str, int]
"""An epoch and a bucket: what a ``bseq`` counts in."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A record of the journal: where it lies, and what it counts for.

    Args:
        shelved: Its identity and place.
        n_bytes: Size of its data.
        n_market: Market messages in it.
        n_gaps: Gaps that it declares.
    """

    shelved: Shelved
    n_bytes: int
    n_market: int
    n_gaps: int


@dataclass(slots=True)
class _Segment:
    """A file, and the last record of each lane in it."""

    number: int
    path: Path
    size: int = 0
    tops: dict[Lane, int] = field(default_factory=dict)


class Journal:
    """The journal in a folder; opening it reads the index of what is there.

    Args:
        folder: Its own folder, made if missing.
        max_bytes: Disk that it may take before :attr:`has_room` says no.
        segment_bytes: Size at which the next file is begun.

    Raises:
        ConfigError: The folder cannot be written.
    """

    def __init__(self, folder: Path, *, max_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._segment_bytes = min(segment_bytes, max(1, max_bytes // 8))
        self._cache: OrderedDict[tuple[int, int], list[Put]] = OrderedDict()
        self._segments: list[_Segment] = []
        self._fd: int | None = None
        self._torn: set[int] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(folder.glob(f"*{SUFFIX}")):
                segment = _Segment(int(path.stem), path, path.stat().st_size)
                self._segments.append(segment)
                for entry in self._entries(segment):
                    _advance(segment.tops, entry.shelved)
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot use the journal {folder}: {error}") from error

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(segment.size for segment in self._segments)

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self._folder

    @property
    def segment(self) -> int | None:
        """Number of the file that is written, or was last."""
        return self._segments[-1].number if self._segments else None

    @property
    def torn(self) -> int:
        """Files whose end cannot be read."""
        return len(self._torn)

    @property
    def has_room(self) -> bool:
        """Whether it is smaller than its limit; a few records more do no harm."""
        return self.size < self._max_bytes

    def append(self, puts: Sequence[Put]) -> list[Shelved]:
        """Write records of one run, in their order, all of them or none; where each lies.

        Raises:
            OSError: They are not written; the journal is as before.
        """
        if not puts:
            return []
        blocks = list(_blocks(puts))
        raws = [_encode(block) for block in blocks]
        segment = self._segment()
        self._write(segment, b"".join(raws))
        out: list[Shelved] = []
        for block, raw in zip(blocks, raws, strict=True):
            for i, put in enumerate(block):
                place = (segment.number, segment.size, i)
                n_market = put.note.n_messages
                shelved = Shelved(
                    int(put.key), put.epoch, put.bseq, put.n_messages, place, n_market
                )
                _advance(segment.tops, shelved)
                out.append(shelved)
            segment.size += len(raw)
        return out

    def load(self, shelved: Shelved) -> Put | None:
        """The record at a place, or ``None`` if it cannot be read any more."""
        number, offset, i = shelved.place
        puts = self._cache.get((number, offset))
        if puts is None:
            puts = self._read_block(number, offset)
            if puts is None or i >= len(puts):
                log.error(
                    "the journal lost record %d of bucket %d and %s: byte %d of %s",
                    shelved.bseq, shelved.bucket, shelved.epoch, offset, self._path(number),
                )  # fmt: skip
                self._set_aside(number)
                return None
            self._cache[number, offset] = puts
            if len(self._cache) > CACHED_BLOCKS:
                self._cache.popitem(last=False)
        return puts[i]

    def entries(self) -> Iterator[Entry]:
        """Every record, oldest first."""
        for segment in list(self._segments):
            yield from self._entries(segment)

    def drop(self, covered: Callable[[str, int, int], bool], *, most: int = 1 << 30) -> int:
        """Delete the oldest segments in which every record is covered; how many.

        Args:
            covered: Told epoch, bucket and the last ``bseq`` of the segment in it.
            most: No more than so many.
        """
        dropped = 0
        while dropped < most and (len(self._segments) > 1 or (self._segments and not self._fd)):
            oldest = self._segments[0]
            if not all(covered(*lane, top) for lane, top in oldest.tops.items()):
                break
            oldest.path.unlink(missing_ok=True)
            del self._segments[0]
            dropped += 1
        return dropped

    def sync_fd(self) -> int | None:
        """A new descriptor of the file that is written, to sync it without the lock."""
        return os.dup(self._fd) if self._fd is not None else None

    def close(self) -> None:
        """Close the file that is written."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _segment(self) -> _Segment:
        if self._fd is None or self._segments[-1].size >= self._segment_bytes:
            self.close()
            number = self._segments[-1].number + 1 if self._segments else 1
            path = self._path(number)
            self._fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
            self._segments.append(_Segment(number, path))
        return self._segments[-1]

    def _write(self, segment: _Segment, raw: bytes) -> None:
        assert self._fd is not None  # noqa: S101 (for the type checker: _segment() opened it)
        view = memoryview(raw)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            with contextlib.suppress(OSError):  # a torn block inside would hide what follows it
                os.ftruncate(self._fd, segment.size)
            self.close()
            if segment.size == 0:  # else a full disk leaves an empty file for every attempt
                with contextlib.suppress(OSError):
                    segment.path.unlink()
                    self._segments.remove(segment)
            raise

    def _entries(self, segment: _Segment) -> Iterator[Entry]:
        offset = 0
        with segment.path.open("rb") as file:
            while header := file.read(HEADER.size):
                block = _check(header, file)
                if block is None:
                    self._torn.add(segment.number)
                    log.warning("%s cannot be read at byte %d", segment.path, offset)
                    following = _next_block(file, offset + 1)
                    if following is None:
                        return
                    self._set_aside(segment.number)
                    offset = file.seek(following)
                    continue
                epoch, rows = orjson.loads(zlib.decompress(block[0]))
                for i, (bucket, bseq, n_messages, *counts) in enumerate(rows):
                    place = (segment.number, offset, i)
                    shelved = Shelved(bucket, epoch, bseq, n_messages, place, counts[1])
                    yield Entry(shelved, *counts)
                offset = file.tell()

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:010d}{SUFFIX}"

    def _set_aside(self, number: int) -> None:
        """Keep a file of which something cannot be read, also after it was dropped."""
        path = self._path(number)
        with contextlib.suppress(OSError):
            path.with_suffix(ASIDE).hardlink_to(path)
            for old in sorted(self._folder.glob(f"*{ASIDE}"))[:-MAX_ASIDE]:
                old.unlink()

    def _read_block(self, number: int, offset: int) -> list[Put] | None:
        try:
            with self._path(number).open("rb") as file:
                file.seek(offset)
                block = _check(file.read(HEADER.size), file)
        except OSError:
            return None
        if block is None:
            return None
        epoch, rows = orjson.loads(zlib.decompress(block[0]))
        data = zlib.decompress(block[1])
        puts, at = [], 0
        for bucket, bseq, n_messages, n_bytes, *_ in rows:
            mine = data[at : at + n_bytes]
            record = codec.decode_record(mine)
            note = account(record.messages, record.market_ns)
            puts.append(Put(str(bucket), mine, epoch, bseq, n_messages, note))
            at += n_bytes
        return puts


def _blocks(puts: Sequence[Put]) -> Iterator[list[Put]]:
    """Small records together; a large one alone, so that it is read alone."""
    block: list[Put] = []
    size = 0
    for put in puts:
        if block and size + len(put.data) > BLOCK_BYTES:
            yield block
            block, size = [], 0
        block.append(put)
        size += len(put.data)
    if block:
        yield block


def _encode(block: Sequence[Put]) -> bytes:
    rows = [
        (
            int(put.key),
            put.bseq,
            put.n_messages,
            len(put.data),
            put.note.n_messages,
            put.note.n_gaps,
        )
        for put in block
    ]
    index = zlib.compress(orjson.dumps((block[0].epoch, rows)), LEVEL)
    data = zlib.compress(b"".join([put.data for put in block]), LEVEL)
    crc = zlib.crc32(data, zlib.crc32(index))
    return HEADER.pack(MAGIC, crc, len(index), len(data)) + index + data


def _check(header: bytes, file: BinaryIO) -> tuple[bytes, bytes] | None:
    """Index and data of the block after a header, or ``None`` if any of it is not as written."""
    if len(header) < HEADER.size:
        return None
    magic, crc, n_index, n_data = HEADER.unpack(header)
    if magic != MAGIC:
        return None
    body = file.read(n_index + n_data)
    if len(body) < n_index + n_data or zlib.crc32(body) != crc:
        return None
    return body[:n_index], body[n_index:]


def _next_block(file: BinaryIO, start: int) -> int | None:
    """Where the next block begins that can be read, at or after a place."""
    file.seek(start)
    rest = file.read()
    at = rest.find(MAGIC)
    while at >= 0:
        file.seek(start + at)
        if _check(file.read(HEADER.size), file) is not None:
            return start + at
        at = rest.find(MAGIC, at + 1)
    return None


def _advance(tops: dict[Lane, int], shelved: Shelved) -> None:
    lane = (shelved.epoch, shelved.bucket)
    if shelved.bseq > tops.get(lane, 0):
        tops[lane] = shelved.bseq
