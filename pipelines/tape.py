"""A tape: market messages as they were published or received, in the order in which they were.

A tape is a folder of files ``tape-000001.msgpack.gz`` (gzip of msgpack values, one behind the
other), or one such file. The first value of each file says what it is, every other is one entry::

    {"raytape_tape": 1, "feed": "iex", "source": "…", "started_ns": …, "symbols": […], …}
    [wall ns, [{"T": "t", "S": "SPY", …}, …]]              messages, their times as Timestamps
    [wall ns, "raw", bytes]                                 a frame that is no message
    [wall ns, "gap", {"since": wall ns, "reason": "…"}]     nothing was received since then

The messages of an entry are packed as they are on the wire of a msgpack client, so that recording
costs no encoding of its own. ``raytape tape PATH`` prints a tape as JSON lines. A file may be read
while it is written, or after a crash cut it: it is read as far as it goes. The newest files stay
within a budget of disk; what was dropped is counted.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.codec import MsgpackStream, encode_msgpack, encode_msgpack_frame
from pipelines.errors import ConfigError, MalformedFrame, TapeFailed
from pipelines.events import SECOND_NS, Message

_LOG = logging.getLogger(__name__)

TAPE_VERSION = 1
RAW = "raw"
GAP_NOTE = "gap"

CHANNELS = {
    "t": "trades",
    "q": "quotes",
    "b": "bars",
    "u": "updatedBars",
    "d": "dailyBars",
    "s": "statuses",
    "l": "lulds",
    "i": "imbalances",
    "c": "corrections",
    "x": "cancelErrors",
    "n": "news",
}
"""Channel by message type."""

_HEADER_KEY = "raytape_tape"
_PAIR = b"\x92"
"""Head of a msgpack array of two."""

_GZIP = 31
_FLUSH_BYTES = 256 * 1024
_FLUSH_NS = SECOND_NS // 4
_FILES = 8


@dataclass(frozen=True, slots=True)
class TapeHeader:
    """What a tape says of itself.

    Args:
        feed: ``iex``, ``sip``, ``test`` or ``news``.
        source: Who published: an address, or the name of a simulated market.
        started_ns: Wall time at which its run began, ns.
        symbols: Whose messages were asked for; ``*`` for all.
        channels: Which channels.
    """

    feed: str
    source: str
    started_ns: int
    symbols: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()


class TapeWriter:
    """Writes the tape of one run into a folder, after those of earlier runs.

    What was written is on disk a quarter of a second later, provided that :meth:`flush_if_due`
    is called in between. When the disk does not take it, what waited is lost, the file ends where
    it was whole, and nothing more is taken until :meth:`go_on`.

    Args:
        folder: Where its files are.
        header: First line of each.
        max_mb: Disk that all of them may take, MiB.

    Raises:
        TapeFailed: (also of every method that writes) The disk does not take it.
    """

    def __init__(self, folder: Path, *, header: TapeHeader, max_mb: int) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TapeFailed(f"tape {folder}: {error.strerror}") from error
        self._folder = folder
        self._header = encode_msgpack({_HEADER_KEY: TAPE_VERSION, **asdict(header)})
        self._file_bytes = max_mb * 1024 * 1024 // _FILES
        self._budget_bytes = max_mb * 1024 * 1024
        self._entries: list[bytes] = []
        self._waiting = self._waiting_messages = 0
        self._flushed_ns = 0
        self.messages = 0
        self.dropped_files = 0
        self._number = max((_number(p) for p in tape_files(folder)), default=0)
        self._open_next()

    def write_messages(self, messages: Sequence[Message], *, wall_ns: int) -> None:
        """Add messages with their times as text."""
        self.write_packed(encode_msgpack_frame(messages), len(messages), wall_ns=wall_ns)

    def write_packed(self, array: bytes, count: int, *, wall_ns: int) -> None:
        """Add messages as the msgpack array that they are on the wire."""
        self._waiting_messages += count
        self.messages += count
        self._add(_PAIR + encode_msgpack(wall_ns) + array, wall_ns)

    def write_raw(self, frame: bytes, *, wall_ns: int) -> None:
        """Add a frame that is no message."""
        self._add(encode_msgpack([wall_ns, RAW, frame]), wall_ns)

    def write_gap(self, *, since_ns: int, reason: str, wall_ns: int) -> None:
        """Add that nothing was received since a wall time, until now."""
        self._add(
            encode_msgpack([wall_ns, GAP_NOTE, {"since": since_ns, "reason": reason}]), wall_ns
        )

    def go_on(self, *, reason: str, wall_ns: int) -> None:
        """Begin another file after a failure, with a note of what is missing in between."""
        since_ns = self._flushed_ns
        self._open_next()
        self.write_gap(since_ns=since_ns, reason=reason, wall_ns=wall_ns)
        self._write_out(wall_ns)

    def flush_if_due(self, wall_ns: int) -> None:
        """Bring to disk what has waited long enough."""
        if self._entries and wall_ns - self._flushed_ns >= _FLUSH_NS:
            self._write_out(wall_ns)

    def close(self) -> None:
        """Bring everything to disk and end the file."""
        if not self._file.closed:
            self._write_out(self._flushed_ns)
            self._put(self._gzip.flush(zlib.Z_FINISH))
            self._file.close()

    def stats(self) -> dict[str, Any]:
        """Messages written, files dropped for the budget, bytes on disk."""
        size = sum(p.stat().st_size for p in tape_files(self._folder))
        return {"messages": self.messages, "dropped_files": self.dropped_files, "bytes": size}

    def _add(self, entry: bytes, wall_ns: int) -> None:
        self._entries.append(entry)
        self._waiting += len(entry)
        if self._waiting >= _FLUSH_BYTES:
            self._write_out(wall_ns)

    def _write_out(self, wall_ns: int) -> None:
        if self._file.closed:
            self._forget_waiting()
            raise TapeFailed(f"tape {self._folder}: is closed")
        data = self._gzip.compress(b"".join(self._entries)) + self._gzip.flush(zlib.Z_SYNC_FLUSH)
        try:
            self._put(data)
        except TapeFailed:
            self._forget_waiting()
            raise
        self._entries.clear()
        self._waiting = self._waiting_messages = 0
        self._flushed_ns = wall_ns
        if self._written >= self._file_bytes:
            self._put(self._gzip.flush(zlib.Z_FINISH))
            self._file.close()
            self._open_next()

    def _forget_waiting(self) -> None:
        self.messages -= self._waiting_messages
        self._entries.clear()
        self._waiting = self._waiting_messages = 0

    def _put(self, data: bytes) -> None:
        """Write all of it; else cut the file back to where it was whole, and close it."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._written)
            with contextlib.suppress(OSError):
                self._file.close()
            raise TapeFailed(f"tape {self._folder}: {error.strerror}") from error
        self._written += len(data)

    def _open_next(self) -> None:
        path = self._folder / f"tape-{self._number + 1:06d}.msgpack.gz"
        self._gzip = zlib.compressobj(level=1, wbits=_GZIP)
        self._written = 0
        try:
            self._file: BinaryIO = path.open("wb", 0)
        except OSError as error:
            raise TapeFailed(f"tape {self._folder}: {error.strerror}") from error
        try:
            head = self._gzip.compress(self._header) + self._gzip.flush(zlib.Z_SYNC_FLUSH)
            self._put(head)
        except TapeFailed:
            with contextlib.suppress(OSError):
                path.unlink()  # nothing is in it
            raise
        self._number += 1
        self._keep_budget()

    def _keep_budget(self) -> None:
        files = tape_files(self._folder)
        sizes = [p.stat().st_size for p in files]
        while len(files) > 1 and sum(sizes) > self._budget_bytes - self._file_bytes:
            oldest = files.pop(0)
            sizes.pop(0)
            oldest.unlink(missing_ok=True)
            self.dropped_files += 1
            _LOG.warning("tape over its budget: dropped %s", oldest.name)


def tape_files(path: Path) -> list[Path]:
    """The files of a tape, oldest first; of a single file, itself."""
    return [path] if path.is_file() else sorted(path.glob("tape-*.msgpack.gz"))


def is_tape(path: Path) -> bool:
    """Whether a path names a tape: a folder with its files, or one file of this kind."""
    return path.is_dir() or path.name.endswith(".msgpack.gz")


def read_header(path: Path) -> TapeHeader | None:
    """The header of a tape's first file; ``None`` if there is no file, or it has no header.

    Raises:
        ConfigError: It is no tape, or one of a version that is not known.
    """
    for file in tape_files(path)[:1]:
        for head in TapePart(file).read():
            if not isinstance(head, dict):
                break
            names = TapeHeader.__dataclass_fields__
            values = {name: head[name] for name in names if name in head}
            for name in ("symbols", "channels"):
                values[name] = tuple(values.get(name, ()))
            return TapeHeader(**values)
    return None


def read_tape(path: Path) -> Iterator[Message]:
    """The messages of a tape, in order (raw frames and notes of gaps are left out).

    Raises:
        ConfigError: As :func:`read_entries`.
    """
    for entry in read_entries(path):
        if entry["c"] not in (RAW, GAP_NOTE):
            yield entry["m"]


def read_entries(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of a tape one by one, without the headers.

    Yields:
        ``{"c": channel, "w": wall ns, "m": message}`` (channel ``""``: of no known type), ``{"c":
        "raw", "w": …, "b64": text}`` or ``{"c": "gap", "w": …, "m": {"since", "reason"}}``.

    Raises:
        ConfigError: A file is no tape, or one of a version that is not known.
    """
    for file in tape_files(path):
        for value in TapePart(file).read():
            yield from entries_of(value)


def channel_of(message: Any) -> str:
    """Channel of a message by its type; ``""`` if it has no known one.

    >>> channel_of({"T": "q"}), channel_of({"T": "?"}), channel_of({})
    ('quotes', '', '')
    """
    kind = message.get("T") if isinstance(message, dict) else None
    return CHANNELS.get(kind, "") if isinstance(kind, str) else ""


class TapePart:
    """One file of a tape while it is read, from its beginning or from a copy of this.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        """Bytes of the file that were read."""
        self._inflate = zlib.decompressobj(wbits=_GZIP)
        self._stream = MsgpackStream()

    def copy(self, *, times_as_text: bool = True) -> TapePart:
        """Another one that reads on from here; to be taken when nothing is being read.

        Args:
            times_as_text: Whether it gives times of messages as text; else as numbers, ns.
        """
        twin = TapePart(self.path)
        twin.offset, twin._inflate = self.offset, self._inflate.copy()
        twin._stream = MsgpackStream(self._stream.tail, times_as_text=times_as_text)
        return twin

    def read(self, *, until: int | None = None, at_once: int = 1 << 20) -> Iterator[Any]:
        """The values up to an offset of the file, or to its end, checked; headers among them.

        Raises:
            ConfigError: It is no tape, or one of a version that is not known.
        """
        with self.path.open("rb") as file:
            file.seek(self.offset)
            while until is None or self.offset < until:
                size = at_once if until is None else min(at_once, until - self.offset)
                if not (data := file.read(size)):
                    return
                self.offset += len(data)
                try:
                    for value in self._stream.feed(self._inflate.decompress(data)):
                        yield _checked(value, self.path)
                except (zlib.error, MalformedFrame) as error:
                    raise ConfigError(
                        f"{self.path} is no tape of market messages: {error}"
                    ) from error


def _checked(value: Any, path: Path) -> Any:
    if isinstance(value, dict) and _HEADER_KEY in value:
        if (version := value[_HEADER_KEY]) != TAPE_VERSION:
            raise ConfigError(f"{path} is a tape of version {version!r}; this reads {TAPE_VERSION}")
    elif not _is_entry(value):
        raise ConfigError(f"{path} is no tape of market messages: {str(value)[:80]}")
    return value


def entries_of(value: Any) -> Iterator[dict[str, Any]]:
    """The entries of a value of a tape, as :func:`read_entries` has them; of a header none."""
    if isinstance(value, dict):
        return
    wall_ns, what, *rest = value
    if what == RAW:
        yield {"c": RAW, "w": wall_ns, "b64": base64.b64encode(rest[0]).decode()}
    elif what == GAP_NOTE:
        yield {"c": GAP_NOTE, "w": wall_ns, "m": rest[0]}
    else:
        for message in what:
            yield {"c": channel_of(message), "w": wall_ns, "m": message}


def _is_entry(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) in (2, 3)
        and isinstance(value[0], int)
        and (isinstance(value[1], list) if len(value) == 2 else value[1] in (RAW, GAP_NOTE))
    )


def _number(path: Path) -> int:
    return int(path.name.removeprefix("tape-").split(".")[0])
