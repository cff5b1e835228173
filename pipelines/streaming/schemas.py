"""What the two queries have in common: names, the source's columns and options.

A row of the source is one Kinesis record of ``market-data``:

=================  =========  =========================================
``stream``         string     its stream
``shard``          string     its shard
``sequence``       string     its sequence number, a decimal number as text
``partition_key``  string     its bucket, as text
``data``           binary     for :func:`pipelines.codec.decode_record`
``arrival``        timestamp  when Kinesis took it
=================  =========  =========================================
"""

from __future__ import annotations

from typing import Final

ARCHIVE: Final = "archive"
SIGNALS: Final = "signals"
"""Names of the queries: of their fences and scheduler pools."""

SOURCE_FORMAT: Final = "kinesis"
SOURCE_COLUMNS: Final = ("stream", "shard", "sequence", "partition_key", "data", "arrival")

RESULT_SCHEMA: Final = "result string"
"""Spark schema of what a partition of the archive gives back: one row of JSON."""


def checkpoint_of_stream(checkpoint_uri: str, identity: str) -> str:
    """Folder of the checkpoints of one stream: what they hold means nothing in another.

    >>> checkpoint_of_stream("/var/checkpoints/", "market-data@1700000000000")
    '/var/checkpoints/market-data@1700000000000'
    """
    return f"{checkpoint_uri.rstrip('/')}/{identity}"


def checkpoint(checkpoint_uri: str, query: str) -> str:
    """Checkpoint folder of a query.

    >>> checkpoint("/var/checkpoints/", ARCHIVE)
    '/var/checkpoints/archive'
    """
    return f"{checkpoint_uri.rstrip('/')}/{query}"
