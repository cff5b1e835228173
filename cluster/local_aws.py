"""Embedded AWS of local mode: Kinesis (kinesalite on LevelDB).

Kinesalite never forgets a record, so its disk use is bounded here: a stream whose records nobody
can need any more is trimmed by :func:`trim` when the store exceeds its limit at start.
"""

from __future__ import annotations

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


def embedded_kinesis(port: int, *, region: str = "us-east-1") -> KinesisConfig:
    """Configuration of the embedded Kinesis on a port of this machine."""
    return KinesisConfig(
        region=region,
        endpoint_url=f"http://127.0.0.1:{port}",
        access_key=EMBEDDED_KEY,
        secret_key=EMBEDDED_KEY,
    )


def start_kinesis(
    *, port: int, path: Path | None, run_dir: Path, log_dir: Path, node: str | None = None
) -> processes.Child:
    """Start kinesalite on 127.0.0.1 and return when it answers.

    Args:
        port: TCP port.
        path: Folder of its LevelDB store; ``None`` keeps everything in memory.
        run_dir: Where the child is written down.
        log_dir: Where its log goes.
        node: Path of ``node``; the one on the PATH by default.

    Raises:
        PartFailed: Node or kinesalite is missing, or it does not answer.
    """
    node = node or shutil.which("node")
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
        command += ["--path", str(path)]
    child = processes.start("kinesis", command, run_dir=run_dir, log_dir=log_dir, env=_env())
    processes.wait_until(
        lambda: processes.port_in_use(port), name="kinesis", timeout_s=20, child=child
    )
    return child


def _env() -> Mapping[str, str]:
    return {"PATH": os.defpath, "NODE_OPTIONS": "--max-old-space-size=384"}


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
