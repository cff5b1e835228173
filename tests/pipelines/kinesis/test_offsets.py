"""Laws of positions, offsets and shard lineage."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import ConfigError, StreamError
from pipelines.kinesis.begin import Begin, symbolic
from pipelines.kinesis.offsets import (
    HORIZON,
    Position,
    Shard,
    ShardOffset,
    StreamOffset,
    follow,
    is_symbolic,
    lost,
    ranges,
    span_ms,
    without_lost,
)

sequences = st.integers(0, 2**186)
positions = st.one_of(
    st.just(HORIZON),
    st.builds(Position, st.sampled_from(["time", "at", "after"]), sequences),
)
exact = st.builds(Position, st.sampled_from(["at", "after"]), sequences)
places = st.builds(
    ShardOffset, begin=positions, end=positions, end_ms=st.integers(0, 2**41), done=st.booleans()
)
offsets = st.builds(
    StreamOffset,
    stream=st.just("market-data"),
    created_ms=st.integers(0, 2**41),
    shards=st.dictionaries(st.sampled_from([f"shardId-{i:012d}" for i in range(8)]), places),
)


def at(position: Position, *, done: bool = False) -> ShardOffset:
    return ShardOffset(position, position, done=done)


@given(positions)
def test_position_written_as_text_comes_back(position: Position) -> None:
    assert Position.parse(str(position)) == position


@given(exact, sequences)
def test_position_as_end_admits_what_the_same_position_as_begin_leaves(
    place: Position, sequence: int
) -> None:
    follows = place < Position("after", sequence)
    assert place.admits(sequence) != follows


@given(offsets)
def test_offset_through_json_is_the_same_and_its_keys_are_sorted(offset: StreamOffset) -> None:
    text = json.dumps(offset.to_dict())
    assert StreamOffset.from_dict(json.loads(text)) == offset
    assert text == json.dumps(json.loads(text), sort_keys=True)


@given(offsets)
def test_ranges_between_an_offset_and_itself_are_none(offset: StreamOffset) -> None:
    assert ranges(offset.to_dict(), offset.to_dict()) == []


@given(
    st.lists(st.integers(1, 1000), min_size=1, max_size=60, unique=True).map(sorted),
    st.data(),
)
def test_ranges_of_successive_batches_cover_every_record_once(
    records: list[int], data: st.DataObject
) -> None:
    """However a shard is cut into batches, each record is in exactly one."""
    cuts = [*sorted(data.draw(st.sets(st.sampled_from(records)))), records[-1]]
    log: list[dict[str, object]] = [symbolic(Begin.parse("TRIM_HORIZON"))]
    begin = HORIZON
    for cut in cuts:
        end = Position("after", cut)
        doc = StreamOffset("s", 1, {"shard": ShardOffset(begin, end)}).to_dict()
        if doc != log[-1]:
            log.append(doc)
        begin = end
    seen = []
    for start, end_doc in itertools.pairwise(log):
        for part in ranges(start, end_doc):
            low = part.begin.value if part.begin.exact else 0
            seen += [r for r in records if r > low and part.end.admits(r)]
    assert seen == records


def test_ranges_of_the_first_batch_take_the_begin_from_its_end() -> None:
    end = StreamOffset(
        "s", 1, {"shard": ShardOffset(Position("at", 5), Position("after", 9))}
    ).to_dict()
    (part,) = ranges(symbolic(Begin.parse("LATEST")), end)
    assert (part.begin, part.end) == (Position("at", 5), Position("after", 9))


def test_ranges_after_the_stream_was_made_anew_ignore_the_old_places() -> None:
    old = StreamOffset("s", 1, {"shard": at(Position("after", 99))})
    new = StreamOffset("s", 2, {"shard": ShardOffset(Position("at", 3), Position("after", 7))})
    (part,) = ranges(old.to_dict(), new.to_dict())
    assert part.begin == Position("at", 3)


def test_begin_latest_takes_only_open_shards() -> None:
    shards = [Shard("a", last=9), Shard("b", ("a",)), Shard("c", ("a",))]
    found = Begin.parse("LATEST").resolve(shards, now_ms=77)
    assert found == {"b": at(Position("time", 77)), "c": at(Position("time", 77))}


def test_begin_horizon_leaves_children_for_later() -> None:
    shards = [Shard("a", last=9), Shard("b", ("a",)), Shard("c", ("a",))]
    assert Begin.parse("TRIM_HORIZON").resolve(shards, now_ms=0) == {"a": at(HORIZON)}


def test_begin_horizon_after_retention_took_the_parent_begins_with_the_children() -> None:
    found = Begin.parse("TRIM_HORIZON").resolve([Shard("b", ("a",)), Shard("c", ("a",))], now_ms=0)
    assert found.keys() == {"b", "c"}


def test_begin_exact_takes_named_places_and_unnamed_roots_but_no_ancestors() -> None:
    shards = [Shard("a", last=9), Shard("b", ("a",)), Shard("d")]
    found = Begin.parse("b=12").resolve(shards, now_ms=0)
    assert found == {"b": at(Position("after", 12)), "d": at(HORIZON)}


@pytest.mark.parametrize("text", ["", "NEWEST", "AT_TIMESTAMP:soon", "a=b"])
def test_begin_of_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        Begin.parse(text)


@given(st.sampled_from(["LATEST", "TRIM_HORIZON", "AT_TIMESTAMP:5", "a=after:1,b=at:2"]))
def test_begin_symbol_is_constant_and_known_as_such(text: str) -> None:
    assert symbolic(Begin.parse(text)) == symbolic(Begin.parse(text))
    assert is_symbolic(symbolic(Begin.parse(text)))
    assert str(Begin.parse(text)) == text


def test_follow_split_begins_children_when_the_parent_is_done() -> None:
    shards = [Shard("a", last=9), Shard("b", ("a",)), Shard("c", ("a",))]
    reading = {"a": at(Position("after", 5))}
    assert follow(reading, shards).keys() == {"a"}
    finished = {"a": at(Position("after", 9), done=True)}
    assert follow(finished, shards).keys() == {"a", "b", "c"}


def test_follow_merge_waits_for_both_parents() -> None:
    shards = [Shard("a", last=9), Shard("b", last=9), Shard("c", ("a", "b"))]
    half = {"a": at(Position("after", 9), done=True), "b": at(Position("after", 5))}
    assert "c" not in follow(half, shards)
    whole = half | {"b": at(Position("after", 9), done=True)}
    assert follow(whole, shards)["c"].end == HORIZON


def test_follow_merge_of_a_shard_and_an_unread_child_waits_for_the_child() -> None:
    """``d`` is made of ``b`` and ``c``, and ``c`` of ``a``: ``b`` being done is not enough."""
    shards = [Shard("a", last=9), Shard("b", last=9), Shard("c", ("a",), 9), Shard("d", ("b", "c"))]
    done_b = {"a": at(Position("after", 5)), "b": at(Position("after", 9), done=True)}
    assert follow(done_b, shards).keys() == {"a", "b"}
    done_a = done_b | {"a": at(Position("after", 9), done=True)}
    assert follow(done_a, shards).keys() == {"a", "b", "c"}


def test_follow_after_latest_begins_children_of_open_shards_only() -> None:
    shards = [Shard("old", last=1), Shard("a", ("old",), 9), Shard("b", ("a",))]
    begun = Begin.parse("LATEST").resolve([Shard("old", last=1), Shard("a", ("old",))], now_ms=3)
    assert begun.keys() == {"a"}
    over = {"a": ShardOffset(begun["a"].begin, Position("after", 9), done=True)}
    assert follow(over, shards).keys() == {"a", "b"}


def test_follow_drops_what_is_done_and_forgotten() -> None:
    places = {"a": at(Position("after", 9), done=True), "b": at(Position("after", 3))}
    assert follow(places, [Shard("b", ("a",))]).keys() == {"b"}


def test_follow_begins_the_children_of_what_is_done_and_forgotten() -> None:
    places = {"a": at(Position("after", 9), done=True)}
    split = [Shard("b", ("a",)), Shard("c", ("a",))]
    assert lost(places, split) == []
    assert follow(places, split) == {"b": at(HORIZON), "c": at(HORIZON)}


def test_follow_of_a_merge_begins_when_its_other_parent_is_done_too() -> None:
    shards = [Shard("b", last=9), Shard("c", ("a", "b"))]
    places = {"a": at(Position("after", 9), done=True), "b": at(Position("after", 3))}
    assert follow(places, shards).keys() == {"b"}
    later = {"b": at(Position("after", 9), done=True)}
    assert follow(later, shards).keys() == {"b", "c"}


@given(st.lists(st.sampled_from(["split", "merge"]), max_size=8), st.randoms())
def test_follow_any_resharding_reads_every_shard_after_its_parents(steps: list[str], rng) -> None:
    shards = {"s0": Shard("s0"), "s1": Shard("s1")}
    for step in steps:
        alive = [s for s in shards.values() if s.last is None]
        if step == "merge" and len(alive) < 2:
            continue
        old = rng.sample(alive, 1 if step == "split" else 2)
        for shard in old:
            shards[shard.id] = Shard(shard.id, shard.parents, last=9)
        for _ in range(2 if step == "split" else 1):
            name = f"s{len(shards)}"
            shards[name] = Shard(name, tuple(s.id for s in old))
    listed = list(shards.values())
    reading = Begin.parse("TRIM_HORIZON").resolve(listed, now_ms=0)
    order: list[str] = []
    while todo := sorted(s for s, place in reading.items() if not place.done):
        closing = rng.choice(todo)
        order.append(closing)
        reading[closing] = ShardOffset(HORIZON, Position("after", 9), done=True)
        reading = follow(reading, listed)
    assert sorted(order) == sorted(shards)
    for shard in listed:
        assert all(order.index(p) < order.index(shard.id) for p in shard.parents)


def test_lost_names_forgotten_shards_that_were_not_finished() -> None:
    places = {"a": at(Position("after", 5)), "b": at(Position("after", 9), done=True)}
    assert lost(places, [Shard("c", ("a",))]) == ["a"]
    assert without_lost(places, [Shard("c", ("a",))]) == {"c": at(HORIZON)}


def test_lost_names_shards_between_what_was_read_and_what_is_listed() -> None:
    places = {"a": at(Position("after", 9), done=True)}
    assert lost(places, [Shard("c", ("b",))]) == ["b"]
    assert without_lost(places, [Shard("c", ("b",))]) == {"c": at(HORIZON)}


def test_lost_names_nothing_that_came_before_the_places() -> None:
    shards = [Shard("b", ("a",), 9), Shard("c", ("b",))]
    begun = Begin.parse("LATEST").resolve(shards, now_ms=3)
    assert (lost(begun, shards), without_lost(begun, shards).keys()) == ([], {"c"})


def test_begin_behind_a_forgotten_shard_whose_children_have_places_needs_it_no_more() -> None:
    shards = [Shard("d", ("b",)), Shard("e", ("b",)), Shard("c")]
    found = Begin.parse("a=5,b=9,c=1,d=12,e=13").resolve(shards, now_ms=0)
    assert found.keys() == {"c", "d", "e"}


def test_begin_behind_a_forgotten_shard_whose_child_has_no_place_names_it_lost() -> None:
    shards = [Shard("b", ("a",)), Shard("c", ("a",))]
    found = Begin.parse("a=5,b=9").resolve(shards, now_ms=0)
    assert lost(found, shards) == ["a"]
    assert without_lost(found, shards).keys() == {"b", "c"}


def test_offset_of_another_version_is_refused() -> None:
    with pytest.raises(StreamError, match="cannot read"):
        StreamOffset.from_dict({"v": 2, "shards": {}})


def test_span_of_a_batch_is_what_a_shard_can_take_in_that_time() -> None:
    assert span_ms(5_000_000) == 5000
    assert span_ms(1) == 1000
