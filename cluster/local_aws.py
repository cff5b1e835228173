"""Embedded AWS of local mode: Kinesis (kinesalite on LevelDB).

Kinesalite never forgets a record that nobody reads, so its disk use is bounded here, twice: while
it runs, records older than its retention are deleted (``kinesalite/trim.cjs``); and before it
starts, :func:`bound_disk` deletes a store that is larger than its limit, if nothing in it was left
unread, which :func:`mark_drained` wrote down when the platform stopped.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from cluster import processes
from pipelines.errors import PartFailed
from pipelines.ports import KinesisConfig

GUARD = Path(__file__).parent / "kinesalite" / "guard.cjs"
KINESALITE = Path(__file__).parent / "kinesalite" / "node_modules" / "kinesalite" / "cli.js"
EMBEDDED_KEY = "embedded"
RETENTION_S = 2 * 3600.0
TRIM_EVERY_S = 60.0

log = logging.getLogger(__name__)


def embedded_kinesis(port: int, *, region: str = "us-east-1") -> KinesisConfig:
    """Configuration of the embedded Kinesis on a port of this machine."""
    return KinesisConfig(
        region=region,
        endpoint_url=f"http://127.0.0.1:{port}",
        access_key=EMBEDDED_KEY,
        secret_key=EMBEDDED_KEY,
    )


def mark_drained(path: Path) -> None:
    """Write down that every record of a store has been read and stored elsewhere.

    To be called after a clean drain, when nobody writes any more; starting Kinesis on the store
    takes the mark away.

    Args:
        path: Folder of the store.
    """
    _mark(path).touch()


def bound_disk(path: Path, limit_mb: float) -> bool:
    """Delete a store that is too large, provided that it was drained; before Kinesis starts.

    The streams are made anew then, and their readers begin anew.

    Args:
        path: Folder of the store.
        limit_mb: What it may hold, megabytes (10^6 bytes).

    Returns:
        Whether it was deleted.
    """
    if not path.is_dir():
        return False
    size_mb = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6
    if size_mb <= limit_mb:
        return False
    if not _mark(path).exists():
        log.warning(
            "%s holds %.0f MB, more than %.0f; it stays, because it was not drained at the last "
            "stop and may hold records that are nowhere else",
            path,
            size_mb,
            limit_mb,
        )
        return False
    log.info("%s holds %.0f MB, more than %.0f, all of it read: deleted", path, size_mb, limit_mb)
    # First out of the way as a whole: half a store would be none.
    doomed = path.with_name(f"{path.name}.deleted")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
    _mark(path).unlink()
    return True


def _mark(path: Path) -> Path:
    return path.with_name(f"{path.name}.drained")


def start_kinesis(
    *,
    port: int,
    path: Path | None,
    run_dir: Path,
    log_dir: Path,
    node: str | None = None,
    retention_s: float = RETENTION_S,
    trim_every_s: float = TRIM_EVERY_S,
) -> processes.Child:
    """Start kinesalite on 127.0.0.1 and return when it answers.

    Args:
        port: TCP port.
        path: Folder of its LevelDB store; ``None`` keeps everything in memory.
        run_dir: Where the child is written down.
        log_dir: Where its log goes.
        node: Path of ``node``; the one on the PATH by default.
        retention_s: Records older than this are deleted, seconds; 0 keeps all. The first go after
            as long a time, ten minutes at most, so that readers of a store that was set aside
            for long may read on.
        trim_every_s: How often.

    Raises:
        PartFailed: Node or kinesalite is missing, or it does not answer.
    """
    node = node or processes.program("node")
    if node is None or not KINESALITE.exists():
        raise PartFailed("kinesis: Node or kinesalite is not installed; run `make setup`")
    command = [
        node,
        "--require",
        str(GUARD),
        str(KINESALITE),
        "--port",
        str(port),
        "--shardLimit",
        "100",
    ]
    command += ["--createStreamMs", "50", "--deleteStreamMs", "50", "--updateStreamMs", "50"]
    if path is not None:
        path.mkdir(parents=True, exist_ok=True)
        _mark(path).unlink(missing_ok=True)
        command += ["--path", str(path)]
    env = _env(retention_s, trim_every_s)
    child = processes.start("kinesis", command, run_dir=run_dir, log_dir=log_dir, env=env)
    processes.wait_until(
        lambda: processes.port_in_use(port), name="kinesis", timeout_s=20, child=child
    )
    return child


def _env(retention_s: float, trim_every_s: float) -> Mapping[str, str]:
    return {
        "PATH": os.defpath,
        "NODE_OPTIONS": "--max-old-space-size=384",
        "RAYTAPE_KINESIS_RETENTION_S": f"{retention_s:g}",
        "RAYTAPE_KINESIS_TRIM_EVERY_S": f"{trim_every_s:g}",
    }


def ensure_streams(config: KinesisConfig, *, shards: int) -> None:
    """Create the two streams where they do not exist yet.

    Args:
        config: Where.
        shards: Shards of ``market-data``; ``market-signals`` gets one.

    Raises:
        PartFailed: Kinesis refused; the message says what it said.
    """
    client = boto3.client(
        "kinesis", config=Config(retries={"total_max_attempts": 5}), **config.client_kwargs()
    )
    try:
        for name, count in ((config.market_data, shards), (config.market_signals, 1)):
            try:
                client.describe_stream_summary(StreamName=name)
            except client.exceptions.ResourceNotFoundException:
                client.create_stream(StreamName=name, ShardCount=count)
        for name in (config.market_data, config.market_signals):
            client.get_waiter("stream_exists").wait(
                StreamName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
            )
    except (BotoCoreError, ClientError) as error:
        raise PartFailed(f"kinesis: cannot create the streams: {error}") from error
    finally:
        client.close()
