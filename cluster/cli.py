"""``raytape``: everything the platform can be asked to do, from a shell."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from cluster import choice, health, preflight, runtime, settings
from cluster.settings import Settings
from pipelines.errors import PartFailed, RaytapeError

app = typer.Typer(
    name="raytape",
    help="Live US-equity tape → streams → reinforcement learning → signals, on one Ray cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
aws_app = typer.Typer(help="Kinesis on AWS.", no_args_is_help=True)
app.add_typer(aws_app, name="aws")
console = Console(highlight=False)
STATE_COLOURS = {"running": "green", "balanced": "green", "stopped": "dim", "critical": "red"}

Replay = Annotated[
    Path | None, typer.Option(help="Parquet file of minute bars, or a recorded session, to replay.")
]
Speed = Annotated[float | None, typer.Option(help="Market seconds per wall second.")]
Symbols = Annotated[str | None, typer.Option(help="Symbols, comma-separated.")]


@app.command()
def up(
    replay: Replay = None,
    speed: Speed = None,
    symbols: Symbols = None,
    live: Annotated[bool | None, typer.Option("--live", help="Alpaca itself; needs keys.")] = None,
) -> None:
    """Start every part; return when the first live signal has been produced."""
    asked = settings.load(
        replay=replay, speed=speed, symbols=symbols or _replay_symbols(replay), live=live
    )
    runtime.prepare(asked)
    from cluster.platform import Platform

    running = health.any_running(asked)
    chosen = asked if running else asked.model_copy(update={"run": choice.run_of(asked)})

    Platform(chosen, console=console).up()


@app.command()
def down() -> None:
    """Stop the producer, drain both queries, stop the rest. Nothing of ours is left running."""
    chosen = _load()
    from cluster.platform import Platform

    Platform(chosen, console=console).down()


@app.command()
def status() -> None:
    """One report of every part, with all addresses."""
    report = health.report(_load())
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("part", "state", "detail"):
        table.add_column(column)
    for part in report:
        colour = STATE_COLOURS.get(part.state, "yellow")
        table.add_row(part.name, f"[{colour}]{part.state}[/]", part.detail)
    console.print(table)
    if any(part.state == "failed" for part in report):
        raise typer.Exit(1)


@app.command()
def logs(
    part: Annotated[str | None, typer.Argument(help="Part, for example producer.")] = None,
    follow: Annotated[bool, typer.Option(help="Wait for more.")] = False,
    lines: Annotated[int, typer.Option(help="Lines of each part to begin with.")] = 20,
) -> None:
    """Show the logs of every part, or of one."""
    from cluster.logs import show

    show(_load().log_dir, part=part, follow=follow, lines=lines, console=console)


@app.command()
def exchange(
    replay: Replay = None,
    speed: Annotated[
        str | None, typer.Option(help="Market seconds per second, or max: as clients take it.")
    ] = None,
    symbols: Symbols = None,
    port: Annotated[int | None, typer.Option(help="Port.")] = None,
    faults: Annotated[Path | None, typer.Option(help="JSON script of faults.")] = None,
) -> None:
    """Run our exchange alone, in the foreground: Alpaca's protocol for your own programs."""
    from cluster.parts import exchange_config
    from pipelines.exchange.server import serve

    chosen = settings.load(
        replay=replay,
        speed=None if speed == "max" else speed,
        symbols=symbols or _replay_symbols(replay),
        exchange_port=port,
        faults=faults,
    )
    console.print(f"exchange on {chosen.exchange_url} (ws /v2/{chosen.feed}); Ctrl-C ends it")
    config = exchange_config(chosen, open_on="start")
    asyncio.run(serve(replace(config, pace="clients") if speed == "max" else config))


@app.command("market-report")
def market_report(
    out: Annotated[Path, typer.Option(help="Folder of plots and tables.")] = Path("build/market"),
    real: Annotated[
        list[Path] | None, typer.Option(help="Parquet file of real bars to stand beside it.")
    ] = None,
    sessions: Annotated[int, typer.Option(help="Sessions of minutes that are looked at.")] = 63,
) -> None:
    """Plot what the synthetic market's returns look like, beside real ones."""
    from cluster.market_report import write

    for path in write(settings.load(), out=out, real=real or [], sessions=sessions):
        console.print(str(path))


@app.command()
def record(
    symbols: Symbols = None,
    channels: Annotated[
        str | None, typer.Option(help="trades,quotes,bars,… or news (the producer's).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder (default: a new one).")] = None,
    duration: Annotated[str | None, typer.Option("--for", help="60s, 10m, 6h.")] = None,
    max_mb: Annotated[int, typer.Option(min=1, help="Disk it may take; the oldest goes.")] = 4096,
    live: Annotated[bool | None, typer.Option("--live", help="Alpaca itself; needs keys.")] = None,
) -> None:
    """Record everything that the feed sends; `up --replay` plays it again."""
    chosen = _load(symbols=symbols, live=live)
    from cluster.recording import record as run

    run(
        chosen, channels=channels, out=out, duration=duration, max_mb=max_mb, console=console,
    )  # fmt: skip


@app.command()
def tape(
    path: Annotated[Path, typer.Argument(exists=True, help="A tape: its folder, or one file.")],
) -> None:
    """Print a recorded tape as JSON, an entry a line, what it says of itself first."""
    from pipelines.tape import read_entries, read_header

    for line in chain([read_header(path)], read_entries(path)):
        sys.stdout.write(orjson.dumps(line).decode() + "\n")


@app.command()
def keys(
    exchange: Annotated[bool, typer.Option("--exchange", help="Ask our exchange.")] = False,
) -> None:
    """Ask Alpaca whether it takes your keys and what your plan allows; shows no secret."""
    chosen = settings.load(live=not exchange)
    from cluster.keys import check

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("what", "works", "detail"):
        table.add_column(column)
    found = check(chosen)
    for one in found:
        colour = "green" if one.verdict == "yes" else "yellow"
        table.add_row(one.name, f"[{colour}]{one.verdict}[/]", one.detail)
    console.print(table)
    if not any(one.verdict == "yes" for one in found):
        raise typer.Exit(1)


@app.command()
def train(
    budget_s: Annotated[float | None, typer.Option(help="Wall seconds.")] = None,
    algorithm: Annotated[str | None, typer.Option(help="ppo or dqn.")] = None,
    promote: Annotated[bool, typer.Option(help="Promote it if the gate agrees.")] = True,
) -> None:
    """Train a policy on history and register it."""
    from cluster.learning import train_model

    chosen = _load(train_budget_s=budget_s, train_algorithm=algorithm)
    train_model(chosen, console=console, promote=promote)


@app.command()
def evaluate(
    model: Annotated[str | None, typer.Argument(help="id:version; the promoted one.")] = None,
) -> None:
    """Backtest a registered model beside the baselines."""
    from cluster.learning import evaluate_model

    evaluate_model(_load(), model=model, console=console)


@app.command()
def models() -> None:
    """List the registered models."""
    from cluster.learning import list_models

    list_models(_load(), console=console)


@app.command()
def promote(model: Annotated[str, typer.Argument(help="id:version, for example ppo-1:3.")]) -> None:
    """Serve this model from now on."""
    from cluster.learning import promote_model

    promote_model(_load(), model=model, console=console)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="SQL over the tables of the lake.")],
    limit: Annotated[int, typer.Option(help="Rows to print in a table.")] = 50,
    form: Annotated[str, typer.Option("--format", help="table, csv, json or parquet.")] = "table",
    out: Annotated[Path | None, typer.Option(help="File for the answer.")] = None,
    as_of: Annotated[str | None, typer.Option(help="Time, or version of the one table.")] = None,
) -> None:
    """Query the lake with SQL (DuckDB)."""
    from cluster import lake

    chosen = _load()
    lake.query(chosen, sql, form=form, out=out, moment=as_of, limit=limit, console=console)
    lake.leave(chosen)


@app.command()
def export(
    table: Annotated[str, typer.Option(help="Table of the lake.")],
    out: Annotated[Path, typer.Option(help="New folder.")],
    partition_by: Annotated[str, typer.Option(help="Columns that become folders.")] = "date",
    as_of: Annotated[str | None, typer.Option(help="Time, or version of the table.")] = None,
) -> None:
    """Write a table as Hive-style Parquet, for other tools."""
    from cluster import lake

    lake.export(_load(), table, partition_by=partition_by, out=out, moment=as_of, console=console)


@app.command()
def watch(
    symbols: Symbols = None,
    channels: Annotated[str, typer.Option(help="Channels.")] = "signals",
) -> None:
    """Print what the stream carries, as it comes."""
    from cluster.watch import follow

    chosen = _load()
    wanted = symbols.upper().split(",") if symbols else ["*"]
    follow(chosen.gateway_url, channels=channels.split(","), symbols=wanted, console=console)


@app.command()
def doctor() -> None:
    """Check this machine; every failure says what to do."""
    chosen = _load()
    checks = [*preflight.machine(chosen), *preflight.free_ports(chosen)]
    running = health.any_running(chosen)
    for check in checks:
        ours = running and check.name.startswith("port ")
        mark = "[green]ok[/]  " if check.ok else ("[dim]used[/]" if ours else "[red]no[/]  ")
        hint = "" if check.ok or ours else f" → {check.fix}"
        console.print(f"{mark} {check.name}: {check.found}{hint}")
    if not running and not all(check.ok for check in checks):
        raise typer.Exit(1)


@app.command()
def call(
    part: Annotated[str, typer.Argument(help="producer, streaming or feed.")],
    method: Annotated[str, typer.Argument(help="For example stats, pause, resume, set_symbols.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="Its arguments, as JSON.")] = None,
    timeout_s: Annotated[float, typer.Option(help="Longest wait for the answer.")] = 30,
) -> None:
    """Ask a running part something; prints its answer as JSON."""
    with runtime.connected(_load()) as ray:
        values = [orjson.loads(text) for text in arguments or []]
        answer = runtime.ask(ray, f"raytape-{part}", method, *values, timeout_s=timeout_s)
    sys.stdout.write(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode() + "\n")


@app.command()
def kill(part: Annotated[str, typer.Argument(help="producer, streaming or feed.")]) -> None:
    """Kill -9 of a part, to see that it comes back."""
    with runtime.connected(_load()) as ray:
        handle = runtime.actor(ray, f"raytape-{part}")
        if handle is None:
            raise PartFailed(f"{part}: no such part runs")
        ray.kill(handle, no_restart=False)


@aws_app.command("plan")
def aws_plan(
    symbols: Symbols = None,
    rate: Annotated[
        list[str] | None,
        typer.Option(help="Messages a second in busy minutes: of each symbol, or SYMBOL=RATE."),
    ] = None,
) -> None:
    """Say how many shards a list of symbols needs, and why. Asks nobody, makes nothing."""
    from cluster import aws

    chosen = settings.load(symbols=symbols)
    rates = aws.rates_of(chosen.symbols, rate or [])
    made = aws.plan(chosen, rates)
    console.print(aws.table_of(made, rates))
    for line in (*aws.remarks(made), aws.create_command(chosen, made)):
        console.print(line, soft_wrap=True)


def _load(**overrides: object) -> Settings:
    """Settings of the run that was started last; Ray may be imported from now on."""
    remembered = choice.remembered(settings.load().var_dir)
    chosen = settings.load(
        **{**remembered, **{k: v for k, v in overrides.items() if v is not None}}
    )
    runtime.prepare(chosen)
    return chosen


def _replay_symbols(replay: Path | None) -> str | None:
    if replay is None:
        return None
    from cluster.parts import symbols_of

    return ",".join(symbols_of(replay))


def main(argv: list[str] | None = None) -> Any:
    """Entry point of the console script; our own errors end it with one line, not a trace."""
    try:
        return app(argv if argv is not None else sys.argv[1:])
    except RaytapeError as error:
        Console(stderr=True, highlight=False, markup=False).print(f"raytape: {error}")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
