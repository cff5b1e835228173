"""A measured job from outside: what it says, what it costs, how much memory it takes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from pipelines.ports import KinesisConfig

SCRIPT = Path(__file__).with_name("job.py")
MASTERS = ("raydp", "local[2]")
SAMPLE_S = 2.0
EXECUTOR, WORKERS = "DefaultWorker", "daemon pyspark.worker"
"""Words of the commands: of RayDP's executor, and of the Python workers that it starts."""


class JobProcess:
    """A running ``job.py``.

    Args:
        folder: Where it writes; made by the caller, kept over restarts.
        given: Its configuration.
    """

    def __init__(self, folder: Path, given: dict[str, Any]) -> None:
        file = folder / "job.json"
        file.write_text(json.dumps(given))
        self.log = folder / "log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(SCRIPT), str(file)], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=log, start_new_session=True, text=True,
            )  # fmt: skip
        self.started = time.monotonic()
        self.lines: list[dict[str, Any]] = []
        self.executor_mb = 0.0
        self._family: dict[int, psutil.Process] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._reader.start()
        self._sampler.start()

    def cpu_s(self) -> float:
        """CPU time of the job and of all that it started and still runs, seconds."""
        total = 0.0
        for process in self._running():
            with contextlib.suppress(psutil.Error):
                total += sum(process.cpu_times()[:2])
        return total

    @property
    def ended(self) -> bool:
        """Whether it is over, and has said all that it will."""
        return self.process.poll() is not None and not self._reader.is_alive()

    def check(self) -> None:
        """See that it runs.

        Raises:
            RuntimeError: It does not; the message ends with its log.
        """
        if self.ended:
            raise self._failure("ended")

    def _failure(self, what: str) -> RuntimeError:
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
        return RuntimeError(f"the job {what}:\n{tail}")

    def wait_for(
        self, ready: Callable[[dict[str, Any]], Any], *, timeout_s: float = 300
    ) -> dict[str, Any]:
        """The first line that is what is waited for."""
        deadline, seen = time.monotonic() + timeout_s, 0
        while True:
            ended = self.ended
            while seen < len(self.lines):
                if ready(self.lines[seen]):
                    return self.lines[seen]
                seen += 1
            if ended or time.monotonic() > deadline:
                raise self._failure("ended" if ended else "is not there yet")
            time.sleep(0.01)

    def event(self, name: str, *, timeout_s: float = 300) -> dict[str, Any]:
        return self.wait_for(lambda line: line["event"] == name, timeout_s=timeout_s)

    def stored(self, count: int, *, timeout_s: float = 300) -> dict[str, Any]:
        """The line that says that so many messages are in the lake."""
        return self.wait_for(lambda line: line.get("stored", 0) >= count, timeout_s=timeout_s)

    def caught_up(self, count: int, *, timeout_s: float = 300) -> dict[str, Any]:
        """The line that says that both queries have done so many messages and nothing waits."""
        return self.wait_for(
            lambda line: line.get("stored", 0) >= count and line["caught_up"], timeout_s=timeout_s
        )

    def stop(self) -> None:
        """Let it end; end what is left of it."""
        if self.process.poll() is None and self.process.stdin is not None:
            self.process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(30)
        self.kill()

    def kill(self) -> None:
        """``kill -9`` for it and everything that it started."""
        for process in self._running():
            with contextlib.suppress(psutil.Error):
                process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        self._sampler.join(5)

    def _running(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            me = psutil.Process(self.process.pid)
            for process in (me, *me.children(recursive=True)):
                self._family.setdefault(process.pid, process)
        return [p for p in self._family.values() if p.is_running()]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                self.lines.append(json.loads(line))

    def _sample(self) -> None:
        while self.process.poll() is None:
            self.executor_mb = max(self.executor_mb, self._executor_mb())
            time.sleep(SAMPLE_S)

    def _executor_mb(self) -> float:
        """Memory of the executor's JVM and of its Python workers, megabytes.

        Proportional set sizes: the workers share what their daemon loaded. With ``local[N]`` the
        JVM is driver and executor in one.
        """
        workers, java = 0, {}
        for process in self._running():
            with contextlib.suppress(psutil.Error):
                words = " ".join(process.cmdline())
                if process.name() == "java":
                    java[process.pid] = (words, process.memory_full_info().pss)
                elif WORKERS in words:
                    workers += process.memory_full_info().pss
        executors = [pss for words, pss in java.values() if EXECUTOR in words]
        return (workers + max(executors or [pss for _, pss in java.values()], default=0)) / 1e6


@contextlib.contextmanager
def running(
    folder: Path, kinesis: KinesisConfig | None, master: str, **given: Any
) -> Iterator[JobProcess]:
    """A job for a while.

    Args:
        folder: Where it writes.
        kinesis: Its streams.
        master: Spark's master.
        given: ``config`` of the streaming job, or ``limit``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {"signals": False, "maintenance_every_s": 0, "ledger_every_s": 0}
    config |= given.pop("config", {})
    stream = asdict(kinesis) if kinesis else None
    job = JobProcess(folder, {"kinesis": stream, "master": master, "config": config, **given})
    try:
        yield job
    finally:
        job.stop()
