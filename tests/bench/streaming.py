"""The streaming job: drain, cost of a message, latency over rate, everything at once, restart.

Quiet, on two cores, all of it takes about a quarter of an hour; ``streaming:PART`` runs one part:

==============  ========  =======================================================================
part            minutes   what
==============  ========  =======================================================================
``drain``       3         a backlog into the lake, archive alone, beside the plan without Kinesis
``cost``        5         CPU time per message as symbols and shards grow
``latency``     10        bar to feature row and signal as the rate grows; ``--plots`` draws it
``restart``     3         the job killed under load, until its next row
``everything``  4         the platform at 8,500 messages a second, its streaming killed at the end
==============  ========  =======================================================================
"""

from __future__ import annotations

from tests.bench.rows import Row, Say
from tests.bench.stream.cost import cost
from tests.bench.stream.drain import drain
from tests.bench.stream.everything import everything
from tests.bench.stream.latency import latency
from tests.bench.stream.restart import restart

PARTS = {
    "drain": drain,
    "cost": cost,
    "latency": latency,
    "restart": restart,
    "everything": everything,
}


def run(say: Say) -> list[Row]:
    """Every part in turn."""
    return [row for part in PARTS.values() for row in part(say)]
