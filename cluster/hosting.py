"""The Ray edge: plain classes of the other packages, hosted as named actors that restart.

An actor's constructor starts the work in a thread; when the work fails, the process ends and Ray
starts it again. Every actor writes its log to a file of its own under ``var/log``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Protocol

import psutil

from cluster.processes import MAX_LOG_BYTES
from cluster.producer_metrics import ray_metrics
from cluster.runtime import ask_all
from pipelines.clock import wall_ns
from pipelines.errors import PartFailed
from pipelines.ingest.actor import ProducerActor
from pipelines.ingest.subscriptions import Subscriptions
from pipelines.ingest.totals import total

log = logging.getLogger(__name__)

RESTART_DELAY_S = 3.0
NICE_EVERY_S = 2.0
METRICS_EVERY_S = 2.0
PEER_TIMEOUT_S = 2.0


class Job(Protocol):
    """What can be hosted: it starts, runs until it fails or is stopped, and tells its state."""

    def start(self) -> None:
        """Start; returns when running."""

    def wait(self) -> None:
        """Block until stopped; raises when a piece of it died."""

    def stats(self) -> dict[str, Any]:
        """Its state and counters."""

    def drain(self, timeout_s: float) -> bool:
        """Finish what has come in; whether all of it was finished in time."""

    def stop(self) -> None:
        """Stop."""


def log_to(path: str) -> None:
    """Send this process's log to a file."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        handlers=[RotatingFileHandler(path, maxBytes=MAX_LOG_BYTES, backupCount=1)],
        level=logging.INFO,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        force=True,
    )
    logging.getLogger("py4j").setLevel(logging.WARNING)
    logging.getLogger("botocore").setLevel(logging.WARNING)


def end_process(status: int) -> None:
    """End this actor's process; Ray starts it again."""
    time.sleep(RESTART_DELAY_S)  # no storm of restarts when the cause stays
    os._exit(status)


class LoggedProducer(ProducerActor):
    """The producer's actor with a log file of its own, its metrics, and a word for its peers.

    Of several producers that share the symbols the first is asked for all: its statistics are the
    sum of all, and a change of symbols is passed on.

    Args:
        name: Its name.
        log_file: Where its log goes.
        peers: Asks the other producers, if this is the first of several.
        arguments: Those of :class:`~pipelines.ingest.actor.ProducerActor`.
        keywords: The same.
    """

    def __init__(
        self, name: str, log_file: str, *arguments: Any, peers: Peers | None = None, **keywords: Any
    ) -> None:
        log_to(log_file)
        self._name = name
        self._peers = peers
        super().__init__(*arguments, **keywords)
        threading.Thread(target=self._measure, name="metrics", daemon=True).start()

    def stats(self) -> dict[str, Any]:
        """State and counters of all producers that share the symbols."""
        if self._peers is None:
            return self.own_stats()
        return total([self.own_stats(), *self._peers.stats()], None)

    def own_stats(self) -> dict[str, Any]:
        """State and counters of this one."""
        return {**super().stats(), "name": self._name}

    def set_symbols(self, symbols: Iterable[str]) -> None:
        """Change the symbols of every channel; each producer takes its share."""
        chosen = tuple(symbols)
        super().set_symbols(chosen)
        if self._peers is not None:
            self._peers.tell("set_symbols", chosen)

    def set_subscriptions(self, wishes: Subscriptions) -> None:
        """Change the channels and the symbols of each; each producer takes its share."""
        super().set_subscriptions(wishes)
        if self._peers is not None:
            self._peers.tell("set_subscriptions", dict(wishes))

    def _measure(self) -> None:
        metrics = ray_metrics(self._name)
        while True:
            try:
                metrics.update(self.own_stats(), self.series(), now_ns=wall_ns())
            except Exception:
                log.exception("metrics are not updated; the next attempt is in a minute")
                time.sleep(60)
            time.sleep(METRICS_EVERY_S)


class Peers:
    """The other producers that share the symbols.

    Args:
        names: Names of their actors.
        namespace: Of Ray.
    """

    def __init__(self, names: Sequence[str], *, namespace: str) -> None:
        self._names = tuple(names)
        self._namespace = namespace
        self._last: dict[str, dict[str, Any]] = {}

    def stats(self) -> list[dict[str, Any]]:
        """What each says; of one that does not answer its last numbers, as ``failed``."""
        found = []
        for name, answer in zip(self._names, self._ask("own_stats"), strict=True):
            if answer is not None:
                self._last[name] = answer
            known = self._last.get(name, {"name": name})
            silent = {"state": "failed", "error": f"{name} does not answer"}
            found.append(known if answer is not None else {**known, **silent})
        return found

    def tell(self, method: str, *arguments: Any) -> None:
        """Call a method of each.

        Raises:
            PartFailed: Not all have heard it.
        """
        import ray

        for name in self._names:
            try:
                handle = ray.get_actor(name, namespace=self._namespace)
                ray.get(getattr(handle, method).remote(*arguments), timeout=PEER_TIMEOUT_S)
            except (ValueError, ray.exceptions.RayError) as error:
                raise PartFailed(f"{name} did not hear {method}: {error}") from error

    def _ask(self, method: str) -> list[dict[str, Any] | None]:
        import ray

        return ask_all(ray, self._names, method, timeout_s=PEER_TIMEOUT_S)


def nice_java(niceness: int) -> None:
    """Nice the Java workers of this node, and what they started, below feed and serving.

    Spark's executors are children of Ray's raylet, which no option of RayDP or Ray nices; on
    Linux every thread has a niceness of its own.
    """
    raylet = psutil.Process(os.getppid())
    workers = [p for p in raylet.children() if p.name() == "java"]
    for process in [*workers, *(c for p in workers for c in p.children(recursive=True))]:
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            if process.nice() != niceness:
                for thread in process.threads():
                    os.setpriority(os.PRIO_PROCESS, thread.id, niceness)


class JobHost:
    """Runs a job in a thread of a Ray actor; ends the process when the job fails.

    Args:
        build: Makes the job. Called in the actor.
        log_file: Where its log goes.
        niceness: Added to this process, and so to what it starts.
    """

    def __init__(self, build: Callable[[], Job], *, log_file: str, niceness: int = 0) -> None:
        log_to(log_file)
        if niceness:
            os.nice(niceness)
        self._error: str | None = None
        self._stopping = False
        self._job = build()
        self._niceness = niceness
        self._thread = threading.Thread(target=self._run, name="job", daemon=True)
        self._thread.start()
        threading.Thread(target=self._keep_nice, name="niceness", daemon=True).start()

    def _keep_nice(self) -> None:
        while self._niceness and not self._stopping:
            nice_java(self._niceness)  # again and again: executors come and go
            time.sleep(NICE_EVERY_S)

    def _run(self) -> None:
        try:
            self._job.start()
            self._job.wait()
        except Exception as error:
            if self._stopping:
                return
            log.exception("the job failed; this process ends and Ray starts it again")
            self._error = f"{type(error).__name__}: {error}".splitlines()[0][:500]
            end_process(1)  # after a moment, so that `raytape up` can read the error

    def stats(self) -> dict[str, Any]:
        """State and counters of the job."""
        stats = dict(self._job.stats())
        if self._error:
            stats.update(state="failed", error=self._error)
        return stats

    def drain(self, timeout_s: float) -> bool:
        """Finish what has come in."""
        return self._job.drain(timeout_s)

    def stop(self) -> None:
        """Stop the job; the actor stays for a last question."""
        self._stopping = True
        self._job.stop()

    def pid(self) -> int:
        """Process id of the actor."""
        return os.getpid()
