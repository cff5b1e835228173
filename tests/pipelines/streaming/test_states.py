"""The states of several symbols in one value."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from pipelines.events import Record
from pipelines.streaming.reduce import reduce
from pipelines.streaming.signals import Fold
from pipelines.streaming.states import pack, unpack
from pipelines.streaming.warmup import Warmup


@given(st.dictionaries(st.text(max_size=20), st.binary(max_size=200), max_size=20))
def test_states_come_back_as_they_were_in_their_order(states: dict[str, bytes]) -> None:
    assert list(unpack(pack(states)).items()) == list(states.items())


class KeptState:
    """Spark's state of one group, between batches."""

    def __init__(self) -> None:
        self.get: tuple[bytes] = (b"",)
        self.exists = False

    def update(self, value: tuple[bytes]) -> None:
        self.get, self.exists = value, True


def test_fold_of_a_group_leaves_the_state_of_an_idle_symbol_as_it_is(tape, rows_of) -> None:
    fold, state = Fold(Warmup(lake_uri="nowhere"), assumed_spread_bps=2.0), KeptState()

    def folded(*records: Record) -> list[dict[str, Any]]:
        (rows,) = reduce([rows_of(list(records))])
        found = fold((15,), [rows.to_pandas()], state)
        return [orjson.loads(payload) for frame in found for payload in frame["payload"]]

    two = folded(tape.record(tape.bar(S="SPY"), tape.bar(S="TSLA")))
    assert [payload["symbol"] for payload in two if "bar" in payload] == ["SPY", "TSLA"]
    before = unpack(state.get[0])
    (one,) = [x for x in folded(tape.record(tape.bar(minute=1, S="SPY"))) if "bar" in x]
    after = unpack(state.get[0])
    assert (one["symbol"], list(after)) == ("SPY", ["SPY", "TSLA"])
    assert after["TSLA"] == before["TSLA"]
    assert after["SPY"] != before["SPY"]
