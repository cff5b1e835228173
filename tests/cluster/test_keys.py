"""What `raytape keys` and `raytape record` do, against our exchange."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console
from typer.testing import CliRunner

from cluster import settings
from cluster.cli import app
from cluster.keys import check, judged
from cluster.recording import config_of, record, seconds_of
from cluster.settings import Settings
from pipelines.errors import ConfigError, FeedFatal, FeedTransient
from pipelines.tape import TapeHeader, TapeWriter, read_header, read_tape
from tests.pipelines.exchange.conftest import exchange  # noqa: F401 (a fixture)


@pytest.fixture
def chosen(tmp_path: Path) -> Callable[..., Settings]:
    def make(market: Any, **more: Any) -> Settings:
        port = market.config.port
        return settings.load(exchange_port=port, var_dir=tmp_path, symbols="AAPL,SPY", **more)

    return make


def test_keys_of_an_exchange_that_offers_one_feed_say_so(
    exchange: Callable[..., Any],  # noqa: F811
    chosen: Callable[..., Settings],
) -> None:
    market = exchange(open_on="start", feeds=("iex",))
    verdicts = {one.name: one.verdict for one in check(chosen(market), timeout_s=5)}
    assert verdicts["live feed iex"] == "yes"
    assert verdicts["live feed sip"] == "no"
    assert verdicts["REST, IEX, now"] == "yes"


def test_keys_that_were_not_set_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="APCA_API_KEY_ID"):
        check(settings.load(live=True))


@pytest.mark.parametrize(
    ("error", "verdict", "detail"),
    [
        (FeedFatal("x", code=402), "wrong keys", "not accepted"),
        (FeedFatal("x", code=403), "no", "plan"),
        (FeedTransient("x", code=406), "not known", "another program"),
        (FeedTransient("nobody there"), "not known", "nobody there"),
    ],
)
def test_keys_verdict_says_what_the_refusal_means(
    error: Exception, verdict: str, detail: str
) -> None:
    def ask() -> None:
        raise error

    found = judged("feed", ask)
    assert found.verdict == verdict
    assert detail in found.detail


def test_record_for_a_while_makes_a_tape_of_its_own(
    exchange: Callable[..., Any],  # noqa: F811
    chosen: Callable[..., Settings],
    tmp_path: Path,
) -> None:
    market = exchange(speed=60.0, max_minutes=60)
    shown = io.StringIO()
    found = record(
        chosen(market),
        channels="trades",
        out=None,
        duration="1s",
        max_mb=8,
        console=Console(file=shown),
    )
    (folder,) = (tmp_path / "tapes").iterdir()
    messages = list(read_tape(folder))
    assert len(messages) == found["messages"] > 0
    assert {m["T"] for m in messages} <= {"t", "c", "x"}
    header = read_header(folder)
    assert header is not None
    assert (header.channels, header.symbols) == (("trades",), ("AAPL", "SPY"))
    assert "recording ws://127.0.0.1" in shown.getvalue()


def test_tape_is_printed_as_json_lines(tmp_path: Path) -> None:
    header = TapeHeader(feed="iex", source="here", started_ns=1, symbols=("SPY",))
    tape = TapeWriter(tmp_path, header=header, max_mb=8)
    tape.write_messages([{"T": "t", "S": "SPY"}], wall_ns=5)
    tape.write_raw(b"\xc1", wall_ns=6)
    tape.close()
    answer = CliRunner().invoke(app, ["tape", str(tmp_path)])
    lines = [orjson.loads(line) for line in answer.stdout.splitlines()]
    assert lines[0]["feed"] == "iex"
    assert lines[1:] == [
        {"c": "trades", "w": 5, "m": {"T": "t", "S": "SPY"}},
        {"c": "raw", "w": 6, "b64": "wQ=="},
    ]


@pytest.mark.parametrize("text", ["", "0", "5 parsecs", "-1s"])
def test_record_duration_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no duration"):
        seconds_of(text)


def test_record_of_news_goes_to_their_feed_and_alone() -> None:
    assert config_of(settings.load(), channels="news").url.endswith("/v1beta1/news")
    with pytest.raises(ConfigError, match="alone"):
        config_of(settings.load(), channels="news,trades")
