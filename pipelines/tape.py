"""A tape: market messages as they were published or received, in the order in which they were.

A tape is a folder of files ``tape-000001.jsonl.gz`` (gzip, one JSON object a line), or one such
file. The first line of each file says what it is, every other line is one entry::

    {"raytape_tape":1,"feed":"iex","source":"…","started_ns":…,"symbols":[…],"channels":[…]}
    {"c":"trades","w":…,"m":{"T":"t","S":"SPY",…}}   a message, its channel, its wall time in ns
    {"c":"raw","w":…,"b64":"…"}                       a frame that is no message
    {"c":"gap","w":…,"m":{"since":…,"reason":"…"}}    nothing was received from since until w

Channel ``""`` is that of a message of no known type. A file may be read while it is written, or
after a crash cut it: it is read as far as it goes. A tape made before there were headers has none.
The newest files stay within a budget of disk; what was dropped is counted.
"""

from __future__ import annotations

import base64
import logging
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.codec import decode_json, encode_json
from pipelines.errors import ConfigError, MalformedFrame
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
    is called in between.

    Args:
        folder: Where its files are.
        header: First line of each.
        max_mb: Disk that all of them may take, MiB.
    """

    def __init__(self, folder: Path, *, header: TapeHeader, max_mb: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._header = encode_json({_HEADER_KEY: TAPE_VERSION, **asdict(header)}) + b"\n"
        self._file_bytes = max_mb * 1024 * 1024 // _FILES
        self._budget_bytes = max_mb * 1024 * 1024
        self._lines: list[bytes] = []
        self._waiting = 0
        self._flushed_ns = 0
        self.messages = 0
        self.dropped_files = 0
        self._number = max((_number(p) for p in tape_files(folder)), default=0)
        self._open_next()

    def write_message(self, channel: str, message: Message, *, wall_ns: int) -> None:
        """Add one message."""
        line = encode_json({"c": channel, "w": wall_ns, "m": message}) + b"\n"
        self.add_lines([line], n_bytes=len(line), wall_ns=wall_ns)

    def write_raw(self, frame: bytes, *, wall_ns: int) -> None:
        """Add a frame that is no message."""
        self._note({"c": RAW, "w": wall_ns, "b64": base64.b64encode(frame).decode()})

    def write_gap(self, *, since_ns: int, reason: str, wall_ns: int) -> None:
        """Add that nothing was received since a wall time, until now."""
        note = {"since": since_ns, "reason": reason}
        self._note({"c": GAP_NOTE, "w": wall_ns, "m": note})

    def add_lines(self, lines: Sequence[bytes], *, n_bytes: int, wall_ns: int) -> None:
        """Add messages as the lines that they are in the file, their ends included."""
        self._lines.extend(lines)
        self._waiting += n_bytes
        self.messages += len(lines)
        if self._waiting >= _FLUSH_BYTES:
            self._write_out(wall_ns)

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

    def _note(self, entry: dict[str, Any]) -> None:
        line = encode_json(entry) + b"\n"
        self._lines.append(line)
        self._waiting += len(line)

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
        self._gzip = zlib.compressobj(level=1, wbits=_GZIP)
        self._file: BinaryIO = (self._folder / f"tape-{self._number:06d}.jsonl.gz").open("wb", 0)
        head = self._gzip.compress(self._header) + self._gzip.flush(zlib.Z_SYNC_FLUSH)
        self._file.write(head)
        self._written = len(head)
        files = tape_files(self._folder)
        sizes = [p.stat().st_size for p in files]
        while len(files) > 1 and sum(sizes) > self._budget_bytes - self._file_bytes:
            oldest = files.pop(0)
            sizes.pop(0)
            oldest.unlink()
            self.dropped_files += 1
            _LOG.warning("tape over its budget: dropped %s", oldest.name)


def tape_files(path: Path) -> list[Path]:
    """The files of a tape, oldest first; of a single file, itself."""
    return [path] if path.is_file() else sorted(path.glob("tape-*.jsonl.gz"))


def is_tape(path: Path) -> bool:
    """Whether a path names a tape: a folder with its files, or one file of this kind."""
    return path.is_dir() or path.name.endswith(".jsonl.gz")


def read_header(path: Path) -> TapeHeader | None:
    """The header of a tape's first file; ``None`` if there is no file, or it has no header.

    Raises:
        ConfigError: It is no tape, or one of a version that is not known.
    """
    for file in tape_files(path)[:1]:
        for line in _lines(file):
            if _HEADER_KEY in line:
                names = TapeHeader.__dataclass_fields__
                values = {name: line[name] for name in names if name in line}
                for name in ("symbols", "channels"):
                    values[name] = tuple(values.get(name, ()))
                return TapeHeader(**values)
            break
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
    """The entries of a tape, as the module describes them, without the headers.

    Raises:
        ConfigError: A file is no tape, or one of a version that is not known.
    """
    for file in tape_files(path):
        for line in _lines(file):
            if _HEADER_KEY not in line:
                yield line


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    inflate = zlib.decompressobj(wbits=_GZIP)
    rest = b""
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            try:
                *lines, rest = (rest + inflate.decompress(chunk)).split(b"\n")
                for line in lines:
                    yield _checked(decode_json(line), path)
            except (zlib.error, MalformedFrame) as error:
                raise ConfigError(f"{path} is no tape of market messages: {error}") from error


def _checked(line: Any, path: Path) -> dict[str, Any]:
    if not isinstance(line, dict) or ("c" not in line and _HEADER_KEY not in line):
        raise ConfigError(f"{path} is no tape of market messages: {str(line)[:80]}")
    if (version := line.get(_HEADER_KEY, TAPE_VERSION)) != TAPE_VERSION:
        raise ConfigError(f"{path} is a tape of version {version!r}; this reads {TAPE_VERSION}")
    return line


def _number(path: Path) -> int:
    return int(path.name.removeprefix("tape-").split(".")[0])
