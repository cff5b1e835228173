"""What a message costs the job as symbols and shards grow: CPU time, so that others matter less."""

from __future__ import annotations

from collections.abc import Mapping

from tests.bench.rows import Row, Say
from tests.bench.stream.embedded import embedded
from tests.bench.stream.running import running
from tests.bench.stream.tape import Backlog, symbols_of

SYMBOLS = (10, 100, 1000)
SHARDS = (1, 8)
WARM_UP, MEASURED = 100_000, 500_000
"""Messages, of which the second part holds the end of a minute."""
FLAT = 1.2
MASTER = "local[2]"


def cost(say: Say) -> list[Row]:
    """CPU time per message of a drain by both queries, in full batches."""
    by_symbols, by_shards = {}, {}
    for symbols in SYMBOLS:
        say(f"{symbols:,} symbols")
        by_symbols[symbols] = cost_us(symbols=symbols)
    for shards in SHARDS:
        say(f"{shards} shards")
        by_shards[shards] = cost_us(shards=shards)
    return [*_rows("symbols", by_symbols), *_rows("shards", by_shards)]


def cost_us(*, symbols: int = 20, shards: int = 2) -> float:
    """Microseconds of CPU that a message costs the job once it is warm."""
    names = symbols_of(symbols)
    config = {
        "signals": True, "symbols": names, "archive_trigger_s": 2, "archive_max_bytes": 8 * 2**20,
    }  # fmt: skip
    with embedded(shards) as (folder, kinesis):
        backlog = Backlog(kinesis, symbols=symbols)
        put = backlog.fill(WARM_UP)
        with running(folder / "job", kinesis, MASTER, config=config, history=False) as job:
            job.caught_up(put)
            cpu = job.cpu_s()
            measured = backlog.fill(MEASURED)
            job.caught_up(put + measured)
            return (job.cpu_s() - cpu) / measured * 1e6


def _rows(what: str, costs: Mapping[int, float]) -> list[Row]:
    first, *_, last = costs.values()
    few, *_, many = costs
    return [
        *(Row(f"CPU of the job per message, {n:,} {what}", us, "µs") for n, us in costs.items()),
        Row(f"{what} {few:,} → {many:,}: times the cost", last / first, "×", FLAT),
    ]
