"""The thread that keeps the journal: syncs it to disk, and drops what the lake holds."""

from __future__ import annotations

import logging
import os
import threading

from pipelines.ingest import files
from pipelines.ingest.durable import JournaledBatcher
from pipelines.ingest.journal import Journal
from pipelines.ports import StoredMarks

log = logging.getLogger(__name__)

SYNC_S = 1.0
PRUNE_S = 60.0


class Keeper:
    """Runs until it is stopped, beside the sender, so that neither disk nor lake delays a put.

    Args:
        journal: The journal.
        batcher: Its owner.
        lake: Knows what need not be kept; without it only the budget drops segments.
        lock: Guards journal and batcher.
        prune_s: Interval of asking the lake.
    """

    def __init__(
        self,
        journal: Journal,
        batcher: JournaledBatcher,
        *,
        lake: StoredMarks | None,
        lock: threading.Lock,
        prune_s: float = PRUNE_S,
    ) -> None:
        self._journal = journal
        self._batcher = batcher
        self._lake = lake
        self._lock = lock
        self._prune_s = prune_s
        self._synced: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="journal-keeper", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End it, and close the journal."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._sync()
        with self._lock:
            self._journal.close()

    def _run(self) -> None:
        left_s = self._prune_s
        while not self._stop.wait(SYNC_S):
            self._sync()
            left_s -= SYNC_S
            if left_s <= 0:
                left_s = self._prune_s
                self._prune()

    def _sync(self) -> None:
        """What a power cut may take is a second old at most; a killed process loses nothing."""
        with self._lock:
            fd = self._journal.sync_fd()
            written = self._journal.segment
        if fd is None:
            return
        try:
            os.fdatasync(fd)
            if written != self._synced:
                files.sync_folder(self._journal.folder)  # a new file has a name to be kept, too
                self._synced = written
        except OSError as error:
            log.warning("the journal is not synced: %s", error)
        finally:
            os.close(fd)

    def _prune(self) -> None:
        if self._lake is None:
            return
        try:
            held = self._lake.marks()
        except Exception as error:  # noqa: BLE001 (whatever a lake raises: the journal is kept)
            log.info("the lake does not say what it holds: %r", error)
            return
        with self._lock:
            self._batcher.prune(held)
