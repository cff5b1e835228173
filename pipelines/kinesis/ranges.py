"""Reading exactly the records between two positions of a shard, as executors do."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from pipelines.errors import DataLoss
from pipelines.kinesis.cursor import RawRecord, ShardCursor
from pipelines.kinesis.offsets import Position, ShardRange

log = logging.getLogger(__name__)

_EMPTY_PAGES = 3  # at the tip in a row: what the driver saw there is not there any more


def read_range(
    client: Any,
    stream: str,
    part: ShardRange,
    *,
    native_time: bool,
    fetch_size: int,
    fail_on_data_loss: bool,
    timeout_s: float,
) -> Iterator[list[RawRecord]]:
    """Exactly the records of one shard between two positions, page by page.

    The record behind which a range begins is asked for too: if it is gone, what followed it may
    be gone with it, and the service itself would begin with its oldest record and say nothing.

    Args:
        client: boto3 Kinesis client.
        stream: Name or ARN of the stream.
        part: Shard, begin and end.
        native_time: See :class:`~pipelines.kinesis.cursor.ShardCursor`.
        fetch_size: Records per request.
        fail_on_data_loss: Raise when records are gone, or go on with a warning.
        timeout_s: How long one request is tried for.

    Yields:
        Lists of records, none empty.

    Raises:
        DataLoss: The begin or the end of the range is gone; the message names what is missing.
        StreamError: The service refused or did not answer in time.
    """
    first = Position("at", part.begin.value) if part.begin.exact else part.begin
    cursor = ShardCursor(
        client, stream, part.shard, first, native_time=native_time, timeout_s=timeout_s
    )
    checked = not part.begin.exact
    last_seen = part.begin
    empty = 0
    while True:
        page = cursor.page(fetch_size)
        records = list(page.records)
        if records and not checked:
            checked = True
            oldest = int(records[0].sequence)
            if oldest != part.begin.value:
                upto = min(part.end, Position("at", oldest))
                _lost(stream, part, part.begin, upto, fail_on_data_loss)
        passed = bool(records) and int(records[-1].sequence) >= part.end.value
        wanted = records  # in the order of their numbers, which take a while to read
        if records and not part.end.admits(int(records[-1].sequence)):
            wanted = [record for record in records if part.end.admits(int(record.sequence))]
        if wanted and part.begin == Position("after", int(wanted[0].sequence)):
            wanted = wanted[1:]
        if wanted:
            last_seen = Position("after", int(wanted[-1].sequence))
            yield wanted
        if passed:
            found = any(int(record.sequence) == part.end.value for record in records)
            if not found and not part.done:
                _lost(stream, part, last_seen, part.end, fail_on_data_loss)
            return
        empty = 0 if records else empty + 1
        if page.closed or (page.at_tip and empty >= _EMPTY_PAGES):
            # Behind the last record of a closed shard lies its end, which is no record.
            if not (part.done and page.closed and checked):
                _lost(stream, part, last_seen, part.end, fail_on_data_loss)
            return


def _lost(stream: str, part: ShardRange, begin: Position, end: Position, fail: bool) -> None:
    text = (
        f"{stream}/{part.shard}: the records from {begin} to {end} are gone, "
        f"which belong to the batch from {part.begin} to {part.end}"
    )
    if fail:
        raise DataLoss(f"{text}; failOnDataLoss=false goes on without them")
    log.warning("%s; going on (failOnDataLoss=false)", text)
