"""State of the producer: replaced at once, and made exact from the stream."""

from __future__ import annotations

import pytest

from pipelines import codec
from pipelines.errors import ConfigError
from pipelines.events import Record, format_time_ns
from pipelines.ingest import state as states
from pipelines.ingest.state import ProducerState

NOW_NS = 1_700_000_000_000_000_000


def _record(epoch, bseq, n):
    trade = {"T": "t", "S": "SPY", "p": 1, "s": 1}
    messages = [{**trade, "t": format_time_ns(NOW_NS + bseq * 1000 + i)} for i in range(n)]
    record = Record(epoch, 63, bseq, NOW_NS, NOW_NS, [*messages, {"T": "hb"}])
    return codec.encode_record(record)


class _Tail:
    def __init__(self, *data):
        self.data = data

    def read_after(self, positions):
        self.asked = positions
        return iter(self.data)


def test_state_saved_and_loaded_is_the_same(tmp_path):
    state = ProducerState("e", 5, 4, 3, 2, {"s": "1"}, {"63": 7}, {"SPY": 9})
    states.save(tmp_path / "deep" / "state.json", state)
    assert states.load(tmp_path / "deep" / "state.json") == state
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["state.json"]


def test_state_missing_is_a_first_start(tmp_path):
    assert states.load(tmp_path / "none.json") is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"version":1}', '{"version":9,"epoch":"e"}']
)
def test_state_unreadable_says_what_to_do(tmp_path, text):
    path = tmp_path / "state.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="move it away"):
        states.load(path)


def test_recover_counts_what_was_stored_after_the_save_once():
    state = ProducerState("e", messages=10, positions={"s": "5"}, bseqs={"63": 2}, marks={"SPY": 3})
    tail = _Tail(
        _record("e", 2, 9), _record("e", 3, 2), _record("e", 3, 2), _record("x", 4, 9), b"?",
        _record("e", 4, 1),
    )  # fmt: skip
    found = states.recover(state, tail)
    assert tail.asked == {"s": "5"}
    assert (found.messages, found.records, found.bseqs) == (13, 2, {"63": 4})
    assert found.marks == {"SPY": NOW_NS + 4000}
