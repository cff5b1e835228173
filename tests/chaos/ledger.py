"""The ledger of a fault: what the exchange's tape says was sent, against what the stream holds.

Law: every message of the tape is stored, or quarantined, or lies strictly inside a declared gap of
its symbol; nothing is stored more often than it was sent; what was not backfilled keeps its order.
"""

from __future__ import annotations

import ast
import base64
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import orjson

from pipelines import codec
from pipelines.events import (
    BAR,
    GAP,
    HEARTBEAT,
    MALFORMED,
    QUOTE,
    TRADE,
    Message,
    Record,
    effective_ns,
    reject_reason,
)

TICKS = frozenset({TRADE, QUOTE, BAR})
RETROSPECTIVE = frozenset("du")
"""Types whose time lies before their publication: the latter says whether a gap explains them."""

Key = bytes


@dataclass(frozen=True, slots=True)
class Sent:
    """A message of the tape, and the market time at which it was published."""

    message: Message
    published_ns: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """The balance of one run.

    Args:
        sent: Messages on the tape that were subscribed.
        stored: Of these, rows received live.
        backfilled: Of these, rows fetched over REST.
        in_gaps: Of these, missing but inside a declared gap.
        lost: Of these, missing and nowhere declared.
        twice: Rows beyond what was sent.
        disordered: Symbols whose live rows are not in the order of the tape.
        quarantined: Messages that a reader rejects, and ``bad`` ones.
        holes: Missing record numbers.
        repeats: Records that the stream holds more than once (dropped by every reader).
        gaps: Gap rows; ``filled``: of these, rows that say a gap was filled.
    """

    sent: int
    stored: int
    backfilled: int
    in_gaps: int
    lost: int
    twice: int
    disordered: int
    quarantined: int
    holes: int
    repeats: int
    gaps: int
    filled: int

    @property
    def clean(self) -> bool:
        """Whether nothing is lost, nothing there twice, and order kept."""
        return not (self.lost or self.twice or self.holes or self.disordered)

    def __str__(self) -> str:
        return ", ".join(f"{f.name} {getattr(self, f.name):,}" for f in fields(self))


def records_of(data: Iterable[bytes]) -> tuple[list[Record], int, int]:
    """The records of a stream without repeats; how many holes and how many repeats there are."""
    last: dict[tuple[str, int], int] = defaultdict(int)
    out: list[Record] = []
    holes = repeats = 0
    for raw in data:
        record = codec.decode_record(raw)
        lane = (record.epoch, record.bucket)
        if record.bseq <= last[lane]:
            repeats += 1
            continue
        holes += record.bseq - last[lane] - 1
        last[lane] = record.bseq
        out.append(record)
    return out, holes, repeats


def balance(sent: Sequence[Sent], data: Iterable[bytes]) -> Ledger:
    """The ledger of what was sent and of what the stream holds.

    Args:
        sent: The messages of the tape that were subscribed, in their order.
        data: The records of the stream, in order within a shard.
    """
    records, holes, repeats = records_of(data)
    rows = [(m, r.market_ns) for r in records for m in r.messages]
    gaps = [m for m, _ in rows if m["T"] == GAP]
    bad = sum(m["T"] == MALFORMED for m, _ in rows)
    live: Counter[Key] = Counter()
    filled: Counter[Key] = Counter()
    order: dict[str, list[Key]] = defaultdict(list)
    rejected: Counter[Key] = Counter()
    for message, market_ns in rows:
        if message["T"] == MALFORMED:
            rejected.update(_whole(message))
        if message["T"] in (GAP, HEARTBEAT, MALFORMED):
            continue
        name = key(message)
        if reject_reason(message, market_ns=market_ns) is not None:
            rejected[name] += 1
        elif message.get("bf"):
            filled[name] += 1
        else:
            live[name] += 1
            if message["T"] in TICKS:
                order[message["S"]].append(name)
    want = Counter(key(s.message) for s in sent)
    missing = want - live - filled - rejected
    inside = _inside(sent, missing, gaps)
    return Ledger(
        sent=len(sent),
        stored=(live & want).total(),
        backfilled=(filled & want).total(),
        in_gaps=inside,
        lost=missing.total() - inside,
        twice=(live + filled - want).total(),
        disordered=_disordered(sent, order),
        quarantined=sum(_rejected(m, ns) for m, ns in rows) + bad,
        holes=holes,
        repeats=repeats,
        gaps=len(gaps),
        filled=sum(bool(g.get("backfilled")) for g in gaps),
    )


def counted(
    sent: Iterable[Hashable], stored: Iterable[Hashable], *, declared: Iterable[Hashable] = ()
) -> dict[str, int]:
    """What ``make chaos`` shows of messages that are known by what they say.

    Args:
        sent: The messages.
        stored: Their rows.
        declared: Messages that somebody said are missing.

    >>> counted("abc", "aa", declared="c")
    {'sent': 3, 'stored': 2, 'lost': 1, 'twice': 1}
    """
    wanted, found = Counter(sent), Counter(stored)
    return {
        "sent": wanted.total(),
        "stored": found.total(),
        "lost": (wanted - found - Counter(declared)).total(),
        "twice": (found - wanted).total(),
    }


def key(message: Message) -> Key:
    """What a message says, whoever received it and however its numbers were written."""
    plain = {k: v for k, v in message.items() if k not in ("r", "bf")}
    return orjson.dumps(_plain(plain), option=orjson.OPT_SORT_KEYS)


def _rejected(message: Message, market_ns: int) -> bool:
    return (
        message["T"] not in (GAP, HEARTBEAT, MALFORMED)
        and reject_reason(message, market_ns=market_ns) is not None
    )


def _whole(bad: Message) -> list[Key]:
    """The message that a ``bad`` one holds, where it holds a whole one: numbers that JSON lacks."""
    text = base64.b64decode(bad["raw"]).decode(errors="replace")
    try:
        held = ast.literal_eval(re.sub(r"\b-?(nan|inf)\b", "None", text))
    except (ValueError, SyntaxError):
        return []
    return [key(held)] if isinstance(held, dict) else []


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return float(value) if type(value) is int and abs(value) < 2**53 else value


def _inside(sent: Sequence[Sent], missing: Counter[Key], gaps: Sequence[Message]) -> int:
    """How many of the missing messages lie strictly inside a gap of their symbol."""
    spans: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for gap in gaps:
        spans[gap["S"]].add((gap["from_ns"] or 0, gap["to_ns"]))
    left, inside = Counter(missing), 0
    for one in sent:
        message, name = one.message, key(one.message)
        if left[name] <= 0:
            continue
        left[name] -= 1
        symbols = message.get("symbols") or [message.get("S")]
        at_ns = one.published_ns if message["T"] in RETROSPECTIVE else effective_ns(message)
        inside += any(a < at_ns < b for s in symbols for a, b in spans[s])
    return inside


def _disordered(sent: Sequence[Sent], order: Mapping[str, Sequence[Key]]) -> int:
    tape: dict[str, list[Key]] = defaultdict(list)
    for one in sent:
        if one.message["T"] in TICKS:
            tape[one.message["S"]].append(key(one.message))
    return sum(not _subsequence(got, tape[symbol]) for symbol, got in order.items())


def _subsequence(part: Sequence[Key], whole: Sequence[Key]) -> bool:
    rest: Iterator[Key] = iter(whole)
    return all(any(one == other for other in rest) for one in part)
