"""How many shards a list of symbols needs, and what decides it. Pure.

A bucket of symbols lives on one shard (it is the partition key), so a stream cannot be cut finer
than its hottest bucket. The limits are those of the page "Quotas and limits" of the AWS guide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import md5

from pipelines.events import BUCKETS, bucket_of
from pipelines.kinesis.batching import RECORDS_PER_S

WRITE_BYTES_PER_S = 1_000_000
WRITE_RECORDS_PER_S = 1_000
READ_BYTES_PER_S = 2_000_000
READS_PER_S = 5
"""Per shard; what is read is shared by every consumer that polls."""

ENVELOPE_BYTES = 200
"""Bytes of a record beside its messages: epoch, counters, times, partition key."""

HEARTBEAT_BYTES = 80
HEADROOM = 0.7
"""Share of a limit that is planned with; the rest is for the minutes that are busier."""

MAX_SHARDS = BUCKETS
"""More shards than buckets would stay empty."""

NEAR = 1.1
"""A shard that carries little beside the hottest bucket: more shards would not help it."""

_HASHES = 2**128


@dataclass(frozen=True, slots=True)
class Rates:
    """What the market says at its busiest.

    Args:
        messages_per_s: Per symbol, messages a second.
        message_bytes: Bytes of a message as JSON, with its time of receipt.
    """

    messages_per_s: Mapping[str, float]
    message_bytes: float = 160.0


@dataclass(frozen=True, slots=True)
class Reader:
    """A consumer that polls.

    Args:
        name: Who.
        reads_per_s: Calls of GetRecords a second and shard.
    """

    name: str
    reads_per_s: float


@dataclass(frozen=True, slots=True)
class Need:
    """What one limit asks for.

    Args:
        limit: Which, in words.
        load: How much there is of it.
        per_shard: How much a shard takes, headroom deducted.
        shards: How many shards that makes.
    """

    limit: str
    load: float
    per_shard: float
    shards: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer.

    Args:
        shards: How many shards.
        needs: Each limit, the deciding one first.
        busiest_share: Share of the busiest shard's write limit that is used, by bytes or records.
        hot: Symbols whose bucket alone is over the planned part of a shard, hottest first.
        polling_fits: Whether the readers' calls fit into a shard's; else fan-out is needed.
        payload_units_per_month: Records a month in units of 25 KB, as they are billed.
        gb_per_month: Bytes written a month, 10^9.
    """

    shards: int
    needs: tuple[Need, ...]
    busiest_share: float
    hot: tuple[str, ...]
    polling_fits: bool
    payload_units_per_month: float
    gb_per_month: float


MARKET_S_PER_MONTH = 21 * 6.5 * 3600
"""Seconds of regular sessions in a month of 21 trading days."""


def plan_shards(
    rates: Rates,
    *,
    readers: tuple[Reader, ...] = (),
    fan_out: int = 0,
    linger_s: float = 0.04,
    headroom: float = HEADROOM,
) -> Plan:
    """How many shards the symbols need.

    Args:
        rates: What is written.
        readers: Consumers that poll; each reads everything.
        fan_out: Consumers with enhanced fan-out; each has 2 MB/s and shard of its own.
        linger_s: Interval of making records.
        headroom: Share of a limit that may be used.

    Raises:
        ValueError: No symbols, a negative rate, or a headroom outside 0 to 1.

    >>> plan = plan_shards(Rates({"AAPL": 300.0, "SPY": 600.0}))
    >>> plan.shards, plan.hot
    (1, ())
    """
    if not rates.messages_per_s or min(rates.messages_per_s.values()) < 0:
        raise ValueError("symbols with a rate of 0 or more are needed")
    if not 0 < headroom <= 1:
        raise ValueError(f"headroom must be above 0 and at most 1, got {headroom}")
    messages, records, n_bytes = _loads(rates, linger_s)
    total_records, total_bytes = sum(records.values()), sum(n_bytes.values())
    needs = [
        _need("bytes written a second", total_bytes, WRITE_BYTES_PER_S * headroom),
        _need("records written a second", total_records, WRITE_RECORDS_PER_S * headroom),
    ]
    if readers:
        read = total_bytes * len(readers)
        label = f"bytes read a second by {len(readers)} polling"
        needs.append(_need(label, read, READ_BYTES_PER_S * headroom))
    if fan_out:
        needs.append(
            _need("bytes read a second by fan-out", total_bytes, READ_BYTES_PER_S * headroom)
        )
    shares = {
        b: max(n_bytes[b] / WRITE_BYTES_PER_S, records[b] / WRITE_RECORDS_PER_S) for b in messages
    }
    least = max(need.shards for need in needs)
    balanced = _balanced(shares, least, headroom)
    if balanced > least:
        needs.append(Need("the busiest shard", max(_spread(shares, least)), headroom, balanced))
    needs.sort(key=lambda need: -need.shards)
    hot_buckets = {b for b, share in shares.items() if share > headroom}
    hot = [s for s in rates.messages_per_s if bucket_of(s) in hot_buckets]
    return Plan(
        shards=balanced,
        needs=tuple(needs),
        busiest_share=max(_spread(shares, balanced)),
        hot=tuple(sorted(hot, key=lambda s: -rates.messages_per_s[s])),
        polling_fits=sum(reader.reads_per_s for reader in readers) <= READS_PER_S,
        payload_units_per_month=sum(
            records[b] * math.ceil(n_bytes[b] / records[b] / 25_000) for b in messages
        )
        * MARKET_S_PER_MONTH,
        gb_per_month=total_bytes * MARKET_S_PER_MONTH / 1e9,
    )


def shard_of(bucket: int, shards: int) -> int:
    """Which of equally wide shards a bucket's partition key falls on.

    >>> [shard_of(bucket, 2) for bucket in range(4)]
    [1, 1, 1, 1]
    """
    return int(md5(str(bucket).encode(), usedforsecurity=False).hexdigest(), 16) * shards // _HASHES


def _loads(
    rates: Rates, linger_s: float
) -> tuple[dict[int, float], dict[int, float], dict[int, float]]:
    """Per bucket in use: messages, records and bytes a second."""
    messages: dict[int, float] = {}
    for symbol, rate in rates.messages_per_s.items():
        bucket = bucket_of(symbol)
        messages[bucket] = messages.get(bucket, 0.0) + rate + 1e-9
    # One record per bucket and interval at most; with few buckets the interval shrinks until all of
    # them together make RECORDS_PER_S.
    most = max(1 / linger_s, RECORDS_PER_S / len(messages))
    records = {b: min(rate + 1, most) for b, rate in messages.items()}
    n_bytes = {
        b: messages[b] * rates.message_bytes + records[b] * ENVELOPE_BYTES + HEARTBEAT_BYTES
        for b in messages
    }
    return messages, records, n_bytes


def _need(limit: str, load: float, per_shard: float) -> Need:
    return Need(limit, load, per_shard, max(1, math.ceil(load / per_shard)))


def _spread(shares: Mapping[int, float], shards: int) -> list[float]:
    """Load of each shard, of its write limit."""
    out = [0.0] * shards
    for bucket, share in shares.items():
        out[shard_of(bucket, shards)] += share
    return out


def _balanced(shares: Mapping[int, float], least: int, headroom: float) -> int:
    """Shards until the busiest is within the headroom, or until more do not help."""
    alone = max(shares.values())
    for shards in range(least, max(least, MAX_SHARDS) + 1):
        if max(_spread(shares, shards)) <= max(headroom, alone * NEAR):
            return shards
    return max(least, MAX_SHARDS)
