"""``python -m tests.chaos.producer_process CONFIG.json``: a producer as a process, to be killed.

It writes its stats to a file, and drains on SIGTERM.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import psutil

from pipelines.history import RestHistory
from pipelines.ingest.actor import ProducerActor
from pipelines.ingest.backfill_config import BackfillConfig
from pipelines.ingest.config import ProducerConfig
from pipelines.kinesis.batching import Batcher
from pipelines.kinesis.tail import StreamTail
from pipelines.kinesis.writer import KinesisWriter
from pipelines.ports import KinesisConfig

DRAIN_S = 30


class FileMarks:
    """A lake whose marks stand in a file: ``{epoch: {bucket: bseq}}``."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def marks(self) -> dict[str, dict[int, int]]:
        text = self._path.read_text() if self._path.exists() else "{}"
        return {run: {int(b): n for b, n in of.items()} for run, of in json.loads(text).items()}


def arguments(given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a :class:`ProducerActor` is made of, from the rig's document."""
    kinesis = KinesisConfig(**given["kinesis"])
    chosen = dict(given["config"])
    for name in ("symbols", "channels"):
        if name in chosen:
            chosen[name] = tuple(chosen[name])
    for name in ("state_path", "journal_dir", "lock_dir"):
        if name in chosen:
            chosen[name] = Path(chosen[name])
    backfill = BackfillConfig(**given["backfill"]) if given["backfill"] is not None else None
    if backfill is not None:
        chosen["backfill"] = backfill
    rest = given["rest_url"]
    positional = (
        ProducerConfig(key="key-id", secret="a-secret", **chosen),
        lambda: KinesisWriter(kinesis, kinesis.market_data),
        Batcher,
        lambda: StreamTail(kinesis, kinesis.market_data),
    )
    named = {
        "lake_factory": lambda: FileMarks(given["lake"]) if given.get("lake") else None,
        "history_factory": lambda: (
            RestHistory(base_url=rest, key="key-id", secret="a-secret") if backfill else None
        ),
    }
    return positional, named


def main(given: dict[str, Any]) -> None:
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    positional, named = arguments(given)
    actor = ProducerActor(*positional, **named)
    out, most = Path(given["stats"]), 0
    while not asked.wait(0.05):
        most = max(most, psutil.Process().memory_info().rss)
        write(out, {**actor.stats(), "rss": most})
    drained = actor.drain(DRAIN_S)
    write(out, {**actor.stats(), "rss": most, "drained": drained})


def write(path: Path, stats: dict[str, Any]) -> None:
    path.with_suffix(".tmp").write_text(json.dumps(stats, default=str))
    path.with_suffix(".tmp").replace(path)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    main(json.loads(Path(sys.argv[1]).read_text()))
