"""What a producer must know after its process was killed, in a small file.

The file is saved about once a second, so it lags behind the stream. What reached the stream since
is read from the stream itself (:func:`recover`), which makes totals and gap bounds exact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pipelines import codec
from pipelines.errors import ConfigError, MalformedFrame
from pipelines.ingest import edges, files
from pipelines.ingest.gaps import GapTracker
from pipelines.ingest.unfilled import Unfilled
from pipelines.ports import TailReader

STATE_VERSION = 1


@dataclass(frozen=True, slots=True)
class ProducerState:
    """How far a producer run came, by what the stream holds for certain.

    Args:
        epoch: The run.
        messages: Market messages stored, over all runs.
        records: Records stored, over all runs.
        n_bytes: Bytes of their data.
        gaps: Gap rows written, over all runs.
        positions: Per shard, a sequence number after which everything unaccounted for lies.
        bseqs: Per bucket (as text, it is a JSON key), the last stored record of this run.
        marks: Per symbol, the market time up to which it is accounted for, ns.
        edges: Per symbol, its last instant and which of its messages are stored
            (:func:`pipelines.ingest.edges.to_json`).
        unfilled: Gaps to be filled (:meth:`pipelines.ingest.unfilled.Unfilled.to_json`).
        older: Per earlier run with records that the stream lacks, its ``bseqs``. A run that is
            named nowhere has all its records on the stream.
        stream: Which stream it was, or empty.
        journaled: Whether every record of the run was written to the journal before it was put.
    """

    epoch: str
    messages: int = 0
    records: int = 0
    n_bytes: int = 0
    gaps: int = 0
    positions: Mapping[str, str] = field(default_factory=dict)
    bseqs: Mapping[str, int] = field(default_factory=dict)
    marks: Mapping[str, int] = field(default_factory=dict)
    edges: Mapping[str, Any] = field(default_factory=dict)
    unfilled: Sequence[Any] = field(default_factory=list)
    older: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    stream: str = ""
    journaled: bool = False

    def lanes(self) -> dict[str, dict[int, int]]:
        """Per run and bucket, the last record that the stream holds."""
        runs = {**self.older, self.epoch: self.bseqs}
        return {run: {int(b): bseq for b, bseq in of.items()} for run, of in runs.items()}


def load(path: Path) -> ProducerState | None:
    """The saved state, or ``None`` if there is none.

    Raises:
        ConfigError: The file is not a state of this version.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    try:
        saved: dict[str, Any] = json.loads(text)
        version = saved.pop("version")
        state = ProducerState(**saved)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} is no producer state ({error}); move it away to begin anew"
        ) from error
    if version != STATE_VERSION:
        raise ConfigError(f"{path} has the unknown version {version!r}; move it away to begin anew")
    return state


def save(path: Path, state: ProducerState) -> None:
    """Replace the saved state, at once or not at all, also if the machine goes down.

    Raises:
        OSError: It is as it was.
    """
    files.replace_text(path, json.dumps({"version": STATE_VERSION, **asdict(state)}))


def recover(state: ProducerState, tail: TailReader) -> ProducerState:
    """The state as of what the stream holds: what was stored after the last save is added.

    Raises:
        StreamError: The stream cannot be read now.
        DataLoss: Records after a saved position are gone.
    """
    messages, records, n_bytes, gaps = state.messages, state.records, state.n_bytes, state.gaps
    runs = {run: dict(of) for run, of in {**state.older, state.epoch: state.bseqs}.items()}
    tracker = GapTracker(
        state.marks, unfilled=Unfilled(state.unfilled), edges=edges.from_json(state.edges)
    )
    for data in tail.read_after(state.positions):
        try:
            record = codec.decode_record(data)
        except MalformedFrame:
            continue  # not ours
        key, bseqs = str(record.bucket), runs.get(record.epoch)
        if bseqs is None or record.bseq <= bseqs.get(key, 0):
            continue
        said = tracker.seal(record.messages, record.market_ns)[1]
        tracker.commit(said)
        tracker.stored(said)
        bseqs[key] = record.bseq
        messages += said.n_messages
        records += 1
        n_bytes += len(data)
        gaps += said.n_gaps
    return replace(
        state,
        messages=messages,
        records=records,
        n_bytes=n_bytes,
        gaps=gaps,
        bseqs=runs.pop(state.epoch),
        older=runs,
        marks=tracker.acked,
        edges=edges.to_json(tracker.acked_edges),
        unfilled=tracker.unfilled.to_json(),
    )
