"""The states of several symbols in one value."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipelines.streaming.states import pack, unpack


@given(st.dictionaries(st.text(max_size=20), st.binary(max_size=200), max_size=20))
def test_states_come_back_as_they_were_in_their_order(states: dict[str, bytes]) -> None:
    assert list(unpack(pack(states)).items()) == list(states.items())
