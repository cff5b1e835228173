"""Learning, as the command line asks for it: train, judge, list, promote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cluster import health, lake, runtime
from cluster.settings import Settings
from pipelines.clock import wall_ns
from pipelines.errors import ConfigError
from pipelines.events import MINUTE_NS, parse_time_ns
from pipelines.features.spec import spec_named, spec_of
from pipelines.history import RestHistory
from rl.registry import ModelRef, Registry


def registry(settings: Settings) -> Registry:
    """The registry of this platform."""
    return Registry(settings.uri("registry"), storage_options=settings.store_options())


def history(settings: Settings, *, per_minute: int | None = None) -> RestHistory:
    """Bars of the past from the vendor, or from our exchange."""
    return RestHistory(
        base_url=None if settings.live else settings.exchange_url,
        key=settings.alpaca_key.get_secret_value(),
        secret=settings.alpaca_secret.get_secret_value(),
        feed=settings.feed,
        per_minute=per_minute,
    )


def market_now_ns(settings: Settings) -> int:
    """Market time of history: the wall clock in live mode, else what the exchange says.

    Also on the test feed of our exchange: its past is that of the simulated market.

    Raises:
        ConfigError: The exchange does not answer.
    """
    if settings.live:
        return wall_ns()
    clock = health.http_json(
        f"{settings.exchange_url}/v2/clock",
        headers={
            "APCA-API-KEY-ID": settings.alpaca_key.get_secret_value(),
            "APCA-API-SECRET-KEY": settings.alpaca_secret.get_secret_value(),
        },
    )
    if clock is None:
        raise ConfigError(f"no exchange answers at {settings.exchange_url}; run `raytape up` first")
    return parse_time_ns(clock["timestamp"])


def ensure_model(settings: Settings, *, console: Console) -> None:
    """Make sure that something can decide: the rules always, a trained policy when there is none.

    None of the features that are served, that is: others are refused. A replay has no past to
    learn from, so it is served by what the registry has.
    """
    store, spec = registry(settings), spec_named(settings.features)
    store.ensure_rules(spec)
    promoted = store.promoted()
    usable = promoted is not None and store.manifest(promoted).fingerprint == spec.fingerprint
    if not usable and settings.replay is None:
        train_model(settings, console=console, connect=False)


def train_model(
    settings: Settings, *, console: Console, promote: bool = True, connect: bool = True
) -> None:
    """Train on history, register the model, and promote it if the gate agrees.

    Args:
        settings: Algorithm, budget, bars.
        console: Where the progress bar goes.
        promote: Whether the gate may promote it.
        connect: Whether to connect to the platform's Ray (``False`` inside ``up``, which is).
    """
    if connect:
        with runtime.connected(settings):
            _train(settings, console=console, promote=promote)
    else:
        _train(settings, console=console, promote=promote)


def _train(settings: Settings, *, console: Console, promote: bool) -> None:
    from rl import episodes, gate
    from rl.train import TrainConfig, train

    bars = history(settings).bars_many(
        settings.symbols, before_ns=market_now_ns(settings), limit=settings.train_bars
    )
    market = episodes.from_bars(
        bars,
        assumed_spread_bps=settings.assumed_spread_bps,
        spec=spec_named(settings.features),
    )
    config = TrainConfig(
        algorithm=settings.train_algorithm, budget_s=settings.train_budget_s, seed=settings.seed
    )
    with Progress(
        TextColumn("[green]●[/] training     "),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %  {task.fields[what]}"),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        task = progress.add_task("", total=1.0, what="")

        def show(fraction: float, metrics: Mapping[str, float]) -> None:
            what = f"{metrics['steps']:,.0f} steps, {metrics.get('steps_per_s', 0):,.0f}/s"
            progress.update(task, completed=fraction, what=what)

        result = train(config, market, on_progress=show)
    store = registry(settings)
    if promote:
        ref, verdict = gate.admit(
            store,
            result.manifest,
            result.onnx,
            validation=result.validation,
            costs=config.env.costs,
        )
        console.print(f"  {ref} {'serves now' if verdict.promoted else 'does not serve'}")
        console.print(f"  [dim]{verdict.reason}[/]")
    else:
        console.print(f"  {store.register(result.manifest, result.onnx)} registered")


def list_models(settings: Settings, *, console: Console) -> None:
    """Print the registered models, the promoted one marked."""
    store = registry(settings)
    promoted = store.promoted()
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("", "model", "kind", "made", "net return", "trades", "verdict"):
        table.add_column(column, justify="right" if column in ("net return", "trades") else "left")
    for manifest in store.list():
        metrics = manifest.metrics
        verdict = store.verdict(manifest.ref) or {}
        table.add_row(
            "[green]●[/]" if manifest.ref == promoted else "",
            str(manifest.ref),
            manifest.kind,
            manifest.created_at[:19],
            _percent(metrics.get("net_return")),
            str(metrics.get("trades", "")),
            str(verdict.get("reason", ""))[:80],
        )
    console.print(table)


def promote_model(settings: Settings, *, model: str, console: Console) -> None:
    """Serve a registered model from now on.

    Raises:
        ModelError: There is no such model.
    """
    store = registry(settings)
    ref = ModelRef.parse(model)
    store.load(ref)
    store.promote(ref)
    console.print(f"{ref} serves within a few seconds")


def evaluate_model(settings: Settings, *, model: str | None, console: Console) -> None:
    """Backtest a model on the newest history that it did not learn from, beside the baselines."""
    from rl import episodes
    from rl.evaluate import report
    from rl.train import TrainConfig

    store = registry(settings)
    ref = ModelRef.parse(model) if model else store.promoted()
    if ref is None:
        raise ConfigError("no model is promoted; name one, for example rules-1:1")
    manifest, onnx = store.load(ref)
    spec = spec_of(manifest.fingerprint)
    if spec is None:
        raise ConfigError(f"{ref} was made for features {manifest.fingerprint}, unknown here")
    bars = history(settings).bars_many(
        settings.symbols, before_ns=market_now_ns(settings), limit=settings.train_bars
    )
    market = episodes.from_bars(bars, assumed_spread_bps=settings.assumed_spread_bps, spec=spec)
    learnt_to = manifest.training.get("train", {}).get("last")
    if learnt_to is not None:
        purged_ns = parse_time_ns(learnt_to) + episodes.PURGE_BARS * MINUTE_NS
        market = market.where(market.time_ns > purged_ns)
        console.print(f"[dim]{len(market):,} bars that it did not learn from[/]")
    metrics = report(onnx, manifest, market, costs=TrainConfig().env.costs)
    rows: dict[str, Any] = {str(ref): metrics, **metrics["baselines"]}
    lake.keep_evaluation(settings, ref, rows)
    table = Table(box=None, pad_edge=False, header_style="dim")
    names = ("net_return", "sharpe", "max_drawdown", "trades", "turnover")
    table.add_column("policy")
    for name in names:
        table.add_column(name, justify="right")
    for label, found in rows.items():
        table.add_row(label, *(_cell(name, found.get(name)) for name in names))
    console.print(table)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:+.2%}"


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    if name in ("net_return", "max_drawdown"):
        return _percent(value)
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
