"""Starts and stops the parts, in the order in which data flows.

Everything that listens is up before the producer connects; the simulated market opens at that
moment, so no message is missed while the platform starts. Stopping goes the same way: first the
source, then what drains it, then the ground.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

from rich.console import Console

from cluster import choice, health, learning, parts, preflight, processes, producing, runtime
from cluster.settings import Settings, load
from pipelines.errors import ConfigError, PartFailed

FIRST_SIGNAL_TIMEOUT_S = 120.0
DRAIN_TIMEOUT_S = 60.0
PRODUCER_DRAIN_S = 15.0


class Platform:
    """One platform on this machine.

    Args:
        settings: Its settings.
        console: Where a line per part is printed.
    """

    def __init__(self, settings: Settings, *, console: Console) -> None:
        self._settings = settings
        self._console = console

    def up(self) -> None:
        """Start what does not run yet; return when a live signal has been produced.

        Raises:
            ConfigError: The machine or a setting is not as needed.
            PartFailed: A part did not start; what had started is stopped again.
        """
        with choice.exclusive(self._settings):
            if health.any_running(self._settings):
                self._already_up()
                return
            self._preflight()
            started = time.monotonic()
            try:
                self._start()
            except BaseException:
                self._console.print("[dim]stopping what had started[/]")
                self._stop_children()
                raise
            self._console.print(f"[bold]up[/] after {time.monotonic() - started:.0f} s")
            self._addresses()

    def down(self) -> None:
        """Stop the producer, drain both queries, stop the rest. Harmless when nothing runs."""
        with choice.exclusive(self._settings):
            if not health.any_running(self._settings):
                self._console.print("raytape is not running")
                runtime.remove_session(self._settings)
                return
            try:
                with runtime.connected(self._settings) as ray:
                    self._drain(ray)
            except Exception as error:  # noqa: BLE001 (whatever it is, the rest must be stopped)
                reason = (str(error) or type(error).__name__).splitlines()[0]
                self._line("ray", "failed", f"cannot drain: {reason}")
            finally:
                self._stop_children()
            self._console.print("[bold]down[/]")

    def _already_up(self) -> None:
        if not health.http_json(f"{self._settings.gateway_url}/readyz"):
            raise PartFailed(
                "platform: parts of it run, but it is not ready; "
                "see `raytape status`, or `raytape down` first"
            )
        running = load(**choice.remembered(self._settings.var_dir))
        different = [
            name
            for name in ("replay", "speed", "symbols", "live")
            if getattr(running, name) != getattr(self._settings, name)
        ]
        if different:
            raise ConfigError(
                f"raytape is up already, with other {', '.join(different)}; `raytape down` first"
            )
        self._console.print("raytape is up already")
        self._addresses()

    def _start(self) -> None:
        settings = self._settings
        begun = datetime.now(UTC)
        choice.remember(settings)
        if not settings.live:
            with self._step("exchange", settings.exchange_url):
                parts.start_exchange(settings)
        with self._step("kinesis", parts.kinesis_address(settings)):
            parts.start_kinesis(settings)
        with self._step("ray", f"http://{settings.host}:{settings.ray_dashboard_port}"):
            runtime.start_head(settings, extra_env=parts.serve_env(settings))
        with runtime.connected(settings) as ray:
            learning.ensure_model(settings, console=self._console)
            with self._step("serving", settings.gateway_url):
                parts.start_serving(ray, settings)
            with self._step("spark", f"http://{settings.host}:{settings.spark_ui_port}"):
                parts.start_streaming(ray, settings)
                self._await_state(ray, runtime.STREAMING, "streaming", "running", timeout_s=150)
            with self._step("producer", producing.address(settings)):
                producing.start(ray, settings)
                self._await_state(ray, runtime.PRODUCER, "producer", "streaming", timeout_s=30)
            with self._step("first signal", "") as done:
                done(self._first_signal(begun))

    def _preflight(self) -> None:
        settings = self._settings
        if settings.live and "simulated" in {
            settings.alpaca_key.get_secret_value(),
            settings.alpaca_secret.get_secret_value(),
        }:
            raise ConfigError(
                "--live needs your Alpaca keys: set APCA_API_KEY_ID and APCA_API_SECRET_KEY"
            )
        checks = [*preflight.machine(settings), *preflight.free_ports(settings)]
        problems = [f"{c.name}: {c.found} → {c.fix}" for c in checks if not c.ok]
        if problems:
            raise ConfigError("this machine is not ready\n  " + "\n  ".join(problems))

    def _first_signal(self, since: datetime) -> str:
        deadline = time.monotonic() + FIRST_SIGNAL_TIMEOUT_S
        while time.monotonic() < deadline:
            for symbol in self._settings.symbols[:3]:
                url = f"{self._settings.gateway_url}/v1/signals/{symbol}?limit=1"
                found = (health.http_json(url) or {}).get("items") or []
                if found and datetime.fromisoformat(found[0]["decided_at"]) > since:
                    signal = found[0]
                    sure = signal["confidence"]
                    why = signal["reason"] if sure is None else f"at {sure:.2f}"
                    return f"{symbol} {signal['action']} {why}"
            time.sleep(0.25)
        raise PartFailed(
            f"signals: none within {FIRST_SIGNAL_TIMEOUT_S:.0f} s; "
            f"see {self._settings.log_dir / 'streaming.log'}"
        )

    def _await_state(
        self, ray: Any, actor: str, name: str, state: str, *, timeout_s: float
    ) -> None:
        deadline = time.monotonic() + timeout_s
        log = self._settings.log_dir / f"{name}.log"
        while time.monotonic() < deadline:
            stats = runtime.ask(ray, actor, "stats", timeout_s=10)
            if stats and stats["state"] == state:
                return
            if stats and stats["state"] == "failed":
                raise PartFailed(f"{name}: {stats.get('error')}; log {log}")
            time.sleep(0.25)
        raise PartFailed(f"{name}: not {state} after {timeout_s:.0f} s; log {log}")

    def _drain(self, ray: Any) -> None:
        sent = stored = False
        if runtime.actor(ray, runtime.PRODUCER):
            with self._step("producer", "drained") as done:
                sent = producing.drain(ray, self._settings, timeout_s=PRODUCER_DRAIN_S)
                if not sent:
                    done("not drained in time; what is missing is declared at the next start")
        if runtime.actor(ray, runtime.STREAMING):
            with self._step("spark", "drained") as done:
                wait_s = DRAIN_TIMEOUT_S + 5
                answer = runtime.ask(
                    ray, runtime.STREAMING, "drain", DRAIN_TIMEOUT_S, timeout_s=wait_s
                )
                stored = bool(answer)
                if not stored:
                    done("not drained in time; it continues from here at the next start")
                runtime.ask(ray, runtime.STREAMING, "stop", timeout_s=30)
        parts.stop_actors(ray, self._settings)
        if sent and stored:
            parts.mark_drained(self._settings)

    def _stop_children(self) -> None:
        running = {c.name: c for c in processes.running(run_dir=self._settings.run_dir)}
        for name in ("ray", "exchange", "kinesis"):
            if name in running:
                with self._step(name, "stopped"):
                    processes.stop(running[name], run_dir=self._settings.run_dir)
        parts.remove_sockets(self._settings)
        runtime.remove_session(self._settings)

    @contextlib.contextmanager
    def _step(self, name: str, detail: str) -> Iterator[Callable[[str], None]]:
        shown = [detail]
        started = time.monotonic()
        with self._console.status(f"{name} …"):
            try:
                yield partial(shown.__setitem__, 0)
            except PartFailed as error:
                self._line(name, "failed", str(error).splitlines()[0])
                raise
        self._line(name, "ready", shown[0], seconds=time.monotonic() - started)

    def _line(self, name: str, state: str, detail: str, *, seconds: float | None = None) -> None:
        mark = "[green]●[/]" if state == "ready" else "[red]●[/]"
        took = "" if seconds is None else f"[dim]{seconds:5.1f} s[/]"
        self._console.print(f"{mark} {name:<13}{took}  {detail}")

    def _addresses(self) -> None:
        for part in health.addresses(self._settings):
            self._console.print(f"  {part.name:<13}{part.detail}")
