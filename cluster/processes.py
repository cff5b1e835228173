"""Children of the platform: started detached, written down, found again, ended by their id.

Each child has one JSON file under ``var/run``: its id, its start time (so that a recycled id is
never mistaken for it), its log. ``raytape down`` in another process finds all of them there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
import psutil

from pipelines.errors import PartFailed

MAX_LOG_BYTES = 32 * 1024 * 1024
"""A longer log is set aside at the next start; one older file is kept."""


@dataclass(frozen=True, slots=True)
class Child:
    """One child process that this platform started.

    Args:
        name: Part of the platform.
        pid: Process id; also the id of its process group.
        started: Start time by the kernel, seconds since the epoch.
        log: File that holds its output.
    """

    name: str
    pid: int
    started: float
    log: str

    def family(self) -> list[psutil.Process]:
        """The child if it runs, and all that lives in the session it began.

        What a killed child leaves behind is still found here: nobody else can be in its session.
        """
        members = [p for p in psutil.process_iter() if _session(p) == self.pid and _alive(p)]
        return [p for p in members if p.create_time() > self.started - 1]

    def process(self) -> psutil.Process | None:
        """The running process, or ``None`` if it ended (or its id is somebody else's now)."""
        try:
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.started) > 1 or not process.is_running():
                return None
            return process if _alive(process) else None
        except psutil.NoSuchProcess:
            return None


def start(
    name: str,
    command: Sequence[str],
    *,
    run_dir: Path,
    log_dir: Path,
    env: Mapping[str, str] | None = None,
    nice: int = 0,
) -> Child:
    """Start a child in a session of its own, with its output in ``log_dir/<name>.log``.

    Args:
        name: Part of the platform; one running child per name.
        command: Program and arguments.
        run_dir: Where children are written down.
        log_dir: Where logs go.
        env: Its whole environment; this process's by default.
        nice: Added niceness.

    Raises:
        PartFailed: The program does not exist.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    log_dir.mkdir(parents=True, exist_ok=True)
    log = log_dir / f"{name}.log"
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as out:
        try:
            # Not subprocess: a Popen dropped while its process runs warns, and ours outlive us.
            pid = os.posix_spawnp(
                command[0],
                list(command),
                dict(os.environ if env is None else env),
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, out.fileno(), 1),
                    (os.POSIX_SPAWN_DUP2, out.fileno(), 2),
                ],
                setsid=True,
            )
        except OSError as error:
            raise PartFailed(f"{name}: cannot start {command[0]!r}: {error}") from error
    handle = psutil.Process(pid)
    if nice:
        with contextlib.suppress(psutil.Error):
            handle.nice(nice)
    child = Child(name=name, pid=pid, started=handle.create_time(), log=str(log))
    path = run_dir / f"{name}.json"
    draft = path.with_suffix(".tmp")
    draft.write_bytes(orjson.dumps(asdict(child)))
    draft.rename(path)
    return child


def find(name: str, *, run_dir: Path) -> Child | None:
    """The running child of this name, or ``None``."""
    return next((child for child in running(run_dir=run_dir) if child.name == name), None)


def running(*, run_dir: Path) -> list[Child]:
    """All children written down under ``run_dir`` of which anything still runs."""
    written = (Child(**orjson.loads(p.read_bytes())) for p in sorted(run_dir.glob("*.json")))
    return [child for child in written if child.process() is not None or child.family()]


def stop(child: Child, *, run_dir: Path, grace_s: float = 10) -> None:
    """End a child and all that it started: SIGTERM to it, and SIGKILL to what is left.

    Only the child itself is told: it knows in which order to end its own (Ray's head does).
    """
    process = child.process()
    family = child.family()
    if process is not None:
        family += [p for p in _descendants(process) if p not in family]
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
        psutil.wait_procs([process], timeout=grace_s)
    _, alive = psutil.wait_procs(family, timeout=1)
    for member in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(alive, timeout=5)
    (run_dir / f"{child.name}.json").unlink(missing_ok=True)


def _session(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return None


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return list(process.children(recursive=True))
    return []


def program(name: str) -> str | None:
    """Path of a program: the one installed beside this Python, else the one on the PATH."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def port_in_use(port: int, *, host: str = "127.0.0.1") -> bool:
    """Whether somebody listens on a TCP port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((host, port)) == 0


def wait_until(
    ready: Callable[[], bool],
    *,
    name: str,
    timeout_s: float,
    child: Child | None = None,
    poll_s: float = 0.1,
) -> None:
    """Poll a condition until it holds.

    Raises:
        PartFailed: It did not hold in time, or the child ended; the message ends with its log's
            last lines.
    """
    deadline = time.monotonic() + timeout_s
    while not ready():
        ended = child is not None and child.process() is None
        if ended or time.monotonic() > deadline:
            why = "ended at once" if ended else f"not ready after {timeout_s:.0f} s"
            raise PartFailed(f"{name}: {why}{_log_hint(child)}")
        time.sleep(poll_s)


def _log_hint(child: Child | None) -> str:
    if child is None:
        return ""
    lines = Path(child.log).read_text(errors="replace").splitlines()[-5:]
    return f"; log {child.log}\n  " + "\n  ".join(lines)
