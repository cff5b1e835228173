"""Pages of the past; the exchange's own tests ask it over real REST."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.errors import FeedTransient
from pipelines.events import MINUTE_NS, parse_time_ns
from pipelines.history import RestHistory

START_NS = parse_time_ns("2024-07-02T13:30:00.000000001Z")
TRADE = {"i": 1, "x": "V", "p": 10.5, "s": 3, "c": ["@"], "t": "2024-07-02T13:30:01.500Z"}


class _Server:
    """Stands in for the vendor's client: answers in turn, remembers what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def get(self, path: str, data: dict[str, Any]) -> Any:
        self.asked.append((path, dict(data)))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def _history(server: _Server, **more: Any) -> RestHistory:
    history = RestHistory(base_url="http://127.0.0.1:1", key="k", secret="s", **more)
    history._client = server  # type: ignore[assignment]
    return history


def _pages(history: RestHistory, kind: str = "t") -> list[Any]:
    end_ns = START_NS + MINUTE_NS
    return list(history.pages(kind, ["SPY", "AAPL"], start_ns=START_NS, end_ns=end_ns))


def test_pages_are_messages_of_the_feed_to_the_last_page() -> None:
    server = _Server(
        {"trades": {"AAPL": [TRADE], "SPY": [TRADE]}, "next_page_token": "x=="},
        {"trades": {"SPY": [TRADE]}, "next_page_token": None},
    )
    first, second = _pages(_history(server))
    assert first[0] == {"T": "t", "S": "AAPL", **TRADE, "t": "2024-07-02T13:30:01.5Z"}
    assert [m["S"] for m in first + second] == ["AAPL", "SPY", "SPY"]
    (path, asked), (_, again) = server.asked
    assert path == "/stocks/trades"
    assert asked["start"] == "2024-07-02T13:30:00.000000001Z"
    assert asked["symbols"] == "SPY,AAPL"
    assert again == {**asked, "page_token": "x=="}


@pytest.mark.parametrize("answer", [{"bars": {}, "next_page_token": None}, {}])
def test_pages_without_anything_are_empty(answer: dict[str, Any]) -> None:
    server = _Server(answer)
    assert _pages(_history(server), "b") == [[]]
    assert server.asked[0][1]["timeframe"] == "1Min"


@pytest.mark.parametrize(
    "answer",
    [
        OSError("gone"),
        ValueError("no JSON"),
        {"trades": {"SPY": [{"t": "?"}]}},
        {"trades": {"SPY": [{}]}},
        {"trades": [1]},
    ],
)
def test_pages_that_make_no_sense_are_an_error_to_try_again(answer: Any) -> None:
    with pytest.raises(FeedTransient, match="trades over REST"):
        _pages(_history(_Server(answer)))


def test_pages_that_never_end_are_an_error() -> None:
    page: Any = {"trades": {}, "next_page_token": "x"}
    with pytest.raises(FeedTransient, match="again and again"):
        _pages(_history(_Server(page, page)))


def test_pages_wait_for_the_next_minute_when_this_one_is_used_up() -> None:
    now = [100.0]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    page: Any = {"trades": {}, "next_page_token": None}
    server = _Server(*[page] * 5)
    history = _history(server, per_minute=2, now_s=lambda: now[0], sleep=sleep)
    for _ in range(5):
        _pages(history)
        now[0] += 1.0
    assert slept == [58.0, 58.0]
