"""What the platform needs on AWS, as a plan: nothing here talks to AWS."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from cluster.settings import Settings
from pipelines.errors import ConfigError
from pipelines.kinesis.plan import Plan, Rates, Reader, plan_shards

DEFAULT_RATE = 50.0
"""Messages a second and symbol in the busiest minutes; measure your own with `raytape record`."""

ARCHIVE_READS_PER_S = 0.5


def rates_of(symbols: Sequence[str], given: Sequence[str]) -> Rates:
    """Messages a second of each symbol.

    Args:
        symbols: The symbols.
        given: ``RATE`` for all of them, or ``SYMBOL=RATE`` for one; the later wins.

    Raises:
        ConfigError: One of them is neither.

    >>> rates_of(["SPY", "KO"], ["20", "SPY=900"]).messages_per_s
    {'SPY': 900.0, 'KO': 20.0}
    """
    rates = dict.fromkeys(symbols, DEFAULT_RATE)
    for text in given:
        symbol, equals, number = text.rpartition("=")
        try:
            rate = float(number)
        except ValueError:
            rate = -1.0
        if rate < 0 or (equals and not symbol):
            raise ConfigError(
                f"--rate {text}: write a number, or SYMBOL=NUMBER (messages a second)"
            )
        if equals:
            rates[symbol.upper()] = rate
        else:
            rates.update(dict.fromkeys(rates, rate))
    return Rates(rates)


def plan(settings: Settings, rates: Rates) -> Plan:
    """The shards of ``market-data`` for our own readers: two queries poll, the feed has fan-out."""
    readers = (
        Reader("archive", ARCHIVE_READS_PER_S),
        Reader("signals", 1 / settings.signals_trigger_s),
    )
    return plan_shards(rates, readers=readers, fan_out=1, linger_s=settings.batch_ms / 1000)


def table_of(made: Plan, rates: Rates) -> Table:
    """The plan for people: what decides, and what a month's bill is made from."""
    total = sum(rates.messages_per_s.values())
    table = Table(
        title=f"{made.shards} shards for {len(rates.messages_per_s)} symbols, {total:,.0f} msg/s",
        box=None, pad_edge=False, header_style="dim",
    )  # fmt: skip
    for column in ("limit", "load", "a shard takes", "shards"):
        table.add_column(column, justify="left" if column == "limit" else "right")
    for need in made.needs:
        digits = 2 if need.per_shard < 10 else 0
        table.add_row(
            need.limit,
            f"{need.load:,.{digits}f}",
            f"{need.per_shard:,.{digits}f}",
            str(need.shards),
        )
    return table


def remarks(made: Plan) -> list[str]:
    """What else to know."""
    lines = [
        f"the busiest shard uses {made.busiest_share * 100:.0f} % of its write limit",
        f"a month of regular sessions: {made.shards * 730:,.0f} shard-hours, "
        f"{made.payload_units_per_month / 1e6:,.1f} million payload units of 25 KB, "
        f"{made.gb_per_month:,.1f} GB in",
    ]
    if made.hot:
        lines.append(
            f"hot: {', '.join(made.hot)}: one bucket is one shard, more shards do not help; "
            "expect throttling and the alarm hot_bucket"
        )
    if not made.polling_fits:
        lines.append("the readers ask a shard more than five times a second: use enhanced fan-out")
    return lines


def create_command(settings: Settings, made: Plan) -> str:
    """The command that makes the stream."""
    return (
        f"aws kinesis create-stream --stream-name {settings.market_data} "
        f"--shard-count {made.shards} --region {settings.region}"
    )
