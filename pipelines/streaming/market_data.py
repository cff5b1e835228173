"""The data source of the query ``signals``: ``kinesis``, reduced while it is read.

In: a stream. Out: rows of :data:`REDUCED_SCHEMA`. To reduce in the task that reads spares Spark
the records themselves and a Python worker of its own: in batches of half a second their way through
its rows took longer than the work on them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa
from pyspark.sql.datasource import InputPartition

from pipelines.kinesis.options import SourceOptions
from pipelines.kinesis.source import KinesisDataSource, KinesisStreamReader

REDUCED_SCHEMA: Final = "group int, symbol string, first_ns long, parts binary"
"""Spark schema of the rows: :func:`~pipelines.streaming.reduce.group_of` the symbol, the symbol,
wall time of its first record, parts as JSON."""

LIVE: Final = "live"
"""Option: ``true`` where market time is wall time."""


class MarketDataSource(KinesisDataSource):
    """The data source ``market-data``; options are those of ``kinesis``, and ``live``."""

    @classmethod
    def name(cls) -> str:
        """Short name for ``format``."""
        return "market-data"

    def schema(self) -> str:
        """Columns of a row."""
        return REDUCED_SCHEMA

    def streamReader(self, schema: Any) -> MarketDataReader:  # noqa: N802, ARG002
        """The reader of one run of a query."""
        options = dict(self.options)
        live = options.pop(LIVE, "false") == "true"
        return MarketDataReader(SourceOptions.parse(options), live=live)


class MarketDataReader(KinesisStreamReader):
    """Reduces what it reads.

    Args:
        options: Those of ``kinesis``.
        live: Whether to say how long messages took to arrive.
    """

    together = True

    def __init__(self, options: SourceOptions, *, live: bool) -> None:
        super().__init__(options)
        self._live = live

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_live": self._live}

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """One row for each symbol in a part.

        Raises:
            DataLoss: Some of its records are gone; the message names the range.
            StreamError: The service did not answer in time.
        """
        # Not above: Spark plans in new processes, one for each question, that need none of it.
        from pipelines.streaming.reduce import reduce

        return reduce(super().read(partition), live=self._live)
