from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as ws_connect

from pipelines.errors import LakeError
from pipelines.events import MINUTE_NS, format_time_ns, item, parse_time_ns
from serve.api import gateway, signals, stream
from serve.api.docs import complete
from serve.bars import GapKey, between, roll_up
from serve.hub import Hub
from tests.serve.conftest import (
    OPEN_NS,
    Bench,
    bar,
    features_item,
    make_bench,
    minute,
    quote,
    record,
    served,
    trade,
)

UP = [1.0, *[0.0] * 10]
RUNNING = {
    "market": {}, "ledger": {"received": 1}, "feed": {"streams": {"a": "streaming"}},
    "producer": {"state": "streaming"}, "streaming": {"state": "running", "error": None},
}  # fmt: skip


class FakeLake:
    """Two hours of bars before the open, and one gap."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int | None]] = []
        self.broken = False

    def bars(
        self, symbol: str, *, limit: int, before_ns: int | None
    ) -> Sequence[Mapping[str, Any]]:
        if self.broken:
            raise LakeError("the lake is dry")
        self.asked.append((limit, before_ns))
        starts = [OPEN_NS - i * MINUTE_NS for i in range(120, -10, -1)]
        starts = [s for s in starts if before_ns is None or s + MINUTE_NS <= before_ns]
        return [
            {"event_time": format_time_ns(s), "open": 1.0, "high": 1.0, "low": 1.0, "close": 1.0,
             "volume": 1.0, "trade_count": 1, "vwap": 1.0, "source": "vendor", "forming": False}
            for s in starts[-limit:]
        ]  # fmt: skip

    def rolled(
        self, symbol: str, window: str, *, limit: int, before_ns: int | None, start_ns: int | None
    ) -> Sequence[Mapping[str, Any]]:
        rows = roll_up(self.bars(symbol, limit=200, before_ns=before_ns), window)
        return between(rows, start_ns=start_ns, end_ns=None)[-limit:]

    def indicators(
        self, symbol: str, *, limit: int, before_ns: int | None
    ) -> Sequence[Mapping[str, Any]]:
        rows = self.bars(symbol, limit=limit, before_ns=before_ns)
        return [{"event_time": row["event_time"], "sma_5": 1.0} for row in rows]

    def stats(
        self, symbol: str, *, limit: int, before_ns: int | None
    ) -> Sequence[Mapping[str, Any]]:
        ends_ns = None if before_ns is None else before_ns + MINUTE_NS - 1
        numbers = dict.fromkeys(("min", "max", "mean", "variance", "std"), 1.0)
        rows = self.bars(symbol, limit=limit, before_ns=ends_ns)
        return [{"event_time": row["event_time"], "count": 1, **numbers} for row in rows]

    def anomalies(
        self, *, limit: int, severities: Sequence[str], after: Any, **wanted: Any
    ) -> Sequence[Mapping[str, Any]]:
        """One of each severity of two symbols, a minute apart."""
        rows = [
            {
                "symbol": s, "event_time": format_time_ns(OPEN_NS + n * MINUTE_NS), "kind": "rsi",
                "severity": name, "score": 1.5, "value": 75.0, "threshold": 70.0,
                "reason": "RSI 14 is 75.0, above 70", "detector": "rule",
                "known_at": "2024-07-05T13:31:00.5Z",
            }
            for n, name in ((2, "critical"), (1, "warning"), (0, "info"))
            for s in ("AAPL", "SPY")
        ]  # fmt: skip
        keys = [(-parse_time_ns(r["event_time"]), r["symbol"], r["kind"]) for r in rows]
        return [
            r
            for r, key in zip(rows, keys, strict=True)
            if r["severity"] in severities
            and wanted["symbol"] in (None, r["symbol"])
            and (wanted["start_ns"] is None or -key[0] >= wanted["start_ns"])
            and (after is None or key > (-after[0], *after[1:]))
        ][:limit]

    def fills(self, *, limit: int, after: Any, **wanted: Any) -> Sequence[Mapping[str, Any]]:
        """Of two models, a minute apart."""
        rows = [
            {"event_time": format_time_ns(OPEN_NS + n * MINUTE_NS), "symbol": "SPY", "model": m}
            for n in (1, 0)
            for m in ("dqn:1", "ppo:1")
            if wanted["model"] in (None, m)
        ]
        keys = [(-parse_time_ns(r["event_time"]), r["symbol"], r["model"]) for r in rows]
        return [
            r
            for r, key in zip(rows, keys, strict=True)
            if after is None or key > (-after[0], *after[1:])
        ][:limit]

    def alerts(
        self, *, limit: int, severities: Sequence[str], standing: bool, after: Any, **_: Any
    ) -> Sequence[Mapping[str, Any]]:
        """One that stands, and one that is over."""
        rows = [
            {"id": f"full@{at}", "severity": severity, "began_at": at, "ended_at": ended}
            for at, severity, ended in (
                ("2024-07-05T13:31:00Z", "critical", None),
                ("2024-07-05T13:30:00Z", "warning", "2024-07-05T13:30:01Z"),
            )
        ]
        return [
            r
            for r in rows
            if r["severity"] in severities
            and not (standing and r["ended_at"])
            and (after is None or parse_time_ns(r["began_at"]) < after[0])
        ][:limit]

    def gaps(
        self, *, limit: int, start_ns: int | None, end_ns: int | None, after: GapKey | None
    ) -> Sequence[Mapping[str, Any]]:
        """Three interruptions of three symbols each, as one cut of the line makes them."""
        rows = [
            {"symbol": s, "from_ns": n, "to_ns": n + 1, "reason": "reconnect", "backfilled": False}
            for n in (3, 2, 1)
            for s in ("AAPL", "QQQ", "SPY")
        ]
        return [
            r
            for r in rows
            if (start_ns is None or r["to_ns"] >= start_ns)
            and (end_ns is None or r["to_ns"] < end_ns)
            and (
                after is None or (-r["to_ns"], r["symbol"], r["from_ns"]) > (-after[0], *after[1:])
            )
        ][:limit]


class Quiet:
    """A mirror's life without its task: the test fills it."""

    @staticmethod
    def of(bench: Bench) -> Any:
        bench.mirror.start = lambda: None  # type: ignore[method-assign]
        return bench.mirror


def connect(client: httpx.Client, origin: str | None = None) -> ClientConnection:
    url = f"ws://127.0.0.1:{client.base_url.port}/v1/stream"
    return ws_connect(url, proxy=None, origin=origin)  # type: ignore[arg-type]


def say(socket: ClientConnection, **message: Any) -> None:
    socket.send(orjson.dumps(message).decode())


def hear(socket: ClientConnection) -> dict[str, Any]:
    return orjson.loads(socket.recv(timeout=5))


@pytest.fixture
def filled() -> Bench:
    bench = make_bench()
    bench.memory.apply_record(record(trade(), quote(), bar(i=0), trade(s=61, price=102)))
    bench.memory.apply_items([features_item()])
    bench.memory.set_system(
        RUNNING,
        event_time="",
    )
    bench.sync()
    return bench


@pytest.fixture
def asked(filled: Bench) -> Iterator[httpx.Client]:
    parts = signals.SignalParts(Quiet.of(filled), filled.policy, filled.service)
    with served(signals.build(lambda: parts)) as client:
        yield client


@pytest.fixture
def lake() -> FakeLake:
    return FakeLake()


@pytest.fixture
def gate(filled: Bench, lake: FakeLake, tmp_path: Path) -> Iterator[httpx.Client]:
    (tmp_path / "_next/static").mkdir(parents=True)
    (tmp_path / "portfolio").mkdir()
    (tmp_path / "index.html").write_text("<p>home</p>")
    (tmp_path / "404.html").write_text("<p>lost</p>")
    (tmp_path / "portfolio/index.html").write_text("<p>portfolio</p>")
    (tmp_path / "_next/static/a.js").write_text("1")
    parts = gateway.GatewayParts(
        mirror=Quiet.of(filled), symbols=("SPY", "AAPL"), lake=lake, dashboard_dir=tmp_path,
        models=lambda: [{"id": "ppo", "version": 1, "promoted": True, "created_at": "2"}],
        links={"ray": "http://ray"},
    )  # fmt: skip
    with served(gateway.build(lambda: parts)) as client:
        yield client


# ---- signals


def test_signal_of_a_symbol_has_every_field_of_the_contract(asked) -> None:
    answer = asked.post("/v1/signals", json={"symbol": "SPY"}).json()
    assert list(answer) == [
        "symbol", "action", "action_id", "confidence", "probabilities", "value", "q_values",
        "position_fraction", "cash_fraction", "model", "event_time", "decided_at", "data_age_ms",
        "reason",
    ]  # fmt: skip


def test_signal_on_given_features_is_decided(asked) -> None:
    wanted = {"symbol": "XYZ", "features": UP, "position_fraction": 0.5}
    answer = asked.post("/v1/signals", json=wanted).json()
    assert (answer["action"], answer["cash_fraction"]) == ("BUY", 0.5)


def test_batch_twice_is_the_same_answer(asked) -> None:
    wanted = {
        "symbols": ["SPY", "AAPL"],
        "features": [UP, None],
        "bars": [{"event_time": "2024-07-05T13:30:00Z", "open": 1, "close": 2}, None],
        "reasons": [None, "warming_up"],
    }
    first, again = (asked.post("/v1/signals/batch", json=wanted).json() for _ in range(2))
    assert first["signals"][0] == again["signals"][0]
    assert [s["reason"] for s in first["signals"]] == [None, "warming_up"]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("", {"symbol": "SPY", "features": [1.0]}, "features"),
        ("", {"symbol": "spy!"}, "symbol"),
        ("", {}, "symbol"),
        ("", {"symbol": "SPY", "x": 1}, "x"),
        ("", {"symbol": "SPY", "features": UP, "position_fraction": 2}, "position_fraction"),
        ("/batch", {"symbols": []}, "symbols"),
        ("/batch", {"symbols": ["A"], "features": [[1.0]]}, "features.0"),
    ],
)
def test_field_that_is_wrong_is_422_with_its_name(asked, path: str, body: dict, field: str) -> None:
    response = asked.post(f"/v1/signals{path}", json=body)
    assert response.status_code == 422
    error = response.json()["error"]
    assert error["code"] == "invalid"
    assert field in [problem["field"] for problem in error["detail"]]


def test_body_that_is_no_json_is_422(asked) -> None:
    assert asked.post("/v1/signals", content=b"{").status_code == 422


def test_lists_of_different_length_are_422(asked) -> None:
    wanted = {"symbols": ["A", "B"], "features": [UP]}
    assert asked.post("/v1/signals/batch", json=wanted).status_code == 422


def test_bar_whose_time_is_none_is_422(asked) -> None:
    bars = [{"event_time": "yesterday", "open": 1, "close": 1}]
    wanted = {"symbols": ["A"], "features": [UP], "bars": bars}
    assert asked.post("/v1/signals/batch", json=wanted).status_code == 422


def test_unknown_symbol_is_404_in_the_envelope(asked) -> None:
    for response in (
        asked.post("/v1/signals", json={"symbol": "ZZZ"}),
        asked.get("/v1/signals/ZZZ"),
    ):
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "unknown_symbol"


def test_published_signals_are_newest_first_with_a_cursor(filled, asked) -> None:
    for i in range(3):
        time = format_time_ns(OPEN_NS + i * MINUTE_NS)
        data = {"symbol": "SPY", "event_time": time, "action_id": 0, "position_fraction": 0.0}
        filled.memory.apply_items([item("signal", symbol="SPY", event_time=time, data=data)])
    first = asked.get("/v1/signals/SPY?limit=2").json()
    assert [row["event_time"][14:16] for row in first["items"]] == ["32", "31"]
    rest = asked.get(f"/v1/signals/SPY?limit=2&next={first['next']}").json()
    assert [row["event_time"][14:16] for row in rest["items"]] == ["30"]
    assert rest["next"] is None


def test_error_of_our_own_making_is_500_without_a_trace(filled, asked) -> None:
    filled.service.latest = None  # type: ignore[assignment]
    response = asked.post("/v1/signals", json={"symbol": "SPY"})
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal"
    assert "Traceback" not in response.text


# ---- gateway


def test_latest_has_everything_that_is_known(gate) -> None:
    answer = gate.get("/v1/latest/SPY").json()
    assert answer["trade"]["data"]["price"] == 102.0
    assert answer["bar"]["data"]["forming"] is True
    assert answer["features"]["data"]["warm"] is True
    assert answer["signal"] is None


def test_bars_come_from_memory_and_then_the_lake(gate, lake) -> None:
    answer = gate.get("/v1/bars/SPY?limit=5").json()
    assert [b["event_time"][11:16] for b in answer["items"]] == [
        "13:31", "13:30", "13:29", "13:28", "13:27",
    ]  # fmt: skip
    assert [b["forming"] for b in answer["items"]] == [True, False, False, False, False]
    assert lake.asked == [(5, OPEN_NS)]


def test_bars_by_cursor_go_back_without_a_hole(gate) -> None:
    seen, cursor = [], ""
    while cursor is not None:
        answer = gate.get(f"/v1/bars/SPY?limit=50{cursor and '&next=' + cursor}").json()
        seen += [b["event_time"] for b in answer["items"]]
        cursor = answer["next"]
    assert len(seen) == len(set(seen)) == 122
    assert seen == sorted(seen, reverse=True)


def test_bars_of_longer_windows_are_rolled_up(gate) -> None:
    answer = gate.get("/v1/bars/SPY?window=1h&limit=2").json()
    assert [b["event_time"][11:16] for b in answer["items"]] == ["13:00", "12:00"]
    assert answer["items"][0]["volume"] == 30 + 50 + 10


def test_bar_that_ends_after_the_span_is_whole(gate) -> None:
    """The same bar is the same numbers, whatever span it was asked in."""
    alone = gate.get("/v1/bars/SPY?window=5m&limit=1&end=2024-07-05T13:12:00Z").json()["items"]
    among = gate.get("/v1/bars/SPY?window=5m&limit=50").json()["items"]
    assert alone[0]["event_time"][11:16] == "13:10"
    assert alone == [bar for bar in among if bar["event_time"] == alone[0]["event_time"]]


def test_bars_of_a_longer_window_by_cursor_go_back_without_a_hole(gate, lake) -> None:
    seen, cursor = [], ""
    while cursor is not None:
        answer = gate.get(f"/v1/bars/SPY?window=15m&limit=2{cursor and '&next=' + cursor}").json()
        seen += answer["items"]
        cursor = answer["next"]
    assert [b["event_time"][11:16] for b in seen][:3] == ["13:30", "13:15", "13:00"]
    assert [b["volume"] for b in seen][1:] == [15.0] * 8


def test_indicators_and_statistics_come_from_memory_and_then_the_lake(filled, gate) -> None:
    at = format_time_ns(OPEN_NS)
    data = {**features_item()["data"], "indicators": {"sma_5": 7.0}}
    stats = {"count": 9} | dict.fromkeys(("min", "max", "mean", "variance", "std"), 1.0)
    filled.memory.apply_items(
        [
            item("features", symbol="SPY", event_time=at, data=data, revision=1),
            item("stats", symbol="SPY", event_time=at, data=stats),
        ]
    )
    for path, key, first in (("indicators", "sma_5", 7.0), ("stats", "count", 9)):
        answer = gate.get(f"/v1/{path}/SPY?limit=3").json()
        assert [row["event_time"][11:16] for row in answer["items"]] == ["13:30", "13:29", "13:28"]
        assert [row[key] for row in answer["items"]] == [first, 1, 1]
        rest = gate.get(f"/v1/{path}/SPY?limit=2&next={answer['next']}").json()
        assert [row["event_time"][11:16] for row in rest["items"]] == ["13:27", "13:26"]
        span = "start=2024-07-05T13:00:00Z&end=2024-07-05T13:02:30Z"
        some = gate.get(f"/v1/{path}/SPY?{span}").json()["items"]
        assert [row["event_time"][11:16] for row in some] == ["13:02", "13:01", "13:00"]
        assert gate.get(f"/v1/{path}/ZZZ").status_code == 404


def test_bars_between_two_times_are_only_those(gate) -> None:
    span = "start=2024-07-05T13:00:00Z&end=2024-07-05T13:03:00Z"
    answer = gate.get(f"/v1/bars/SPY?{span}").json()
    assert [b["event_time"][14:16] for b in answer["items"]] == ["02", "01", "00"]


@pytest.mark.parametrize("query", ["window=7m", "limit=0", "start=x", "next=%21", "end=2024"])
def test_parameter_that_is_wrong_is_422_with_its_name(gate, query: str) -> None:
    response = gate.get(f"/v1/bars/SPY?{query}")
    assert response.status_code == 422
    assert query.split("=", maxsplit=1)[0] in response.json()["error"]["detail"][0]["field"]


def test_lake_that_fails_is_503_with_retry_after(gate, lake) -> None:
    lake.broken = True
    response = gate.get("/v1/bars/SPY")
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    assert response.json()["error"]["code"] == "unavailable"


def test_unknown_symbol_and_address_are_404_in_the_envelope(gate) -> None:
    for path in ("/v1/latest/ZZZ", "/v1/bars/ZZZ", "/v1/nothing"):
        response = gate.get(path)
        assert (response.status_code, list(response.json())) == (404, ["error"])
    assert gate.delete("/v1/symbols").status_code == 405


def test_platform_state_ledger_models_gaps_and_readiness(gate) -> None:
    assert gate.get("/v1/system").json()["links"] == {"ray": "http://ray"}
    assert gate.get("/v1/ledger").json() == {"received": 1}
    assert gate.get("/v1/models").json()["items"][0]["promoted"] is True
    assert gate.get("/readyz").status_code == 200
    assert [row["symbol"] for row in gate.get("/v1/symbols").json()["items"]] == ["SPY", "AAPL"]


def test_anomalies_by_cursor_and_filters(gate) -> None:
    seen, cursor = [], ""
    while cursor is not None:
        answer = gate.get(f"/v1/anomalies?limit=4{cursor and '&next=' + cursor}").json()
        seen += [(row["severity"], row["symbol"]) for row in answer["items"]]
        cursor = answer["next"]
    assert seen == [(name, s) for name in ("critical", "warning", "info") for s in ("AAPL", "SPY")]
    one = gate.get("/v1/anomalies?symbol=SPY&severity=warning").json()["items"]
    assert [(row["severity"], row["symbol"]) for row in one] == [
        ("critical", "SPY"), ("warning", "SPY"),
    ]  # fmt: skip
    since = one[0]["event_time"]
    assert len(gate.get(f"/v1/anomalies?start={since}").json()["items"]) == 2


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [("next=nonsense", 422, "next"), ("severity=bad", 422, "severity"), ("symbol=ZZZ", 404, None)],
)
def test_anomalies_that_cannot_be_asked_for_are_refused_by_name(gate, query, status, field) -> None:
    response = gate.get(f"/v1/anomalies?{query}")
    assert response.status_code == status
    if field:
        assert field in str(response.json()["error"]["detail"])


def test_fills_and_alerts_by_cursor_and_filters(gate) -> None:
    for path, field, all_of_them in (
        ("fills", "model", ["dqn:1", "ppo:1"] * 2),
        ("alerts", "severity", ["critical", "warning"]),
    ):
        seen, cursor = [], ""
        while cursor is not None:
            answer = gate.get(f"/v1/{path}?limit=1{cursor and '&next=' + cursor}").json()
            seen += [row[field] for row in answer["items"]]
            cursor = answer["next"]
        assert seen == all_of_them
    assert len(gate.get("/v1/fills?model=ppo:1").json()["items"]) == 2
    assert gate.get("/v1/fills?symbol=ZZZ").status_code == 404
    assert len(gate.get("/v1/alerts?standing=true").json()["items"]) == 1
    cursor = gate.get("/v1/fills?limit=1").json()["next"]
    assert gate.get(f"/v1/alerts?next={cursor}").status_code == 422  # of another listing


def test_alert_about_the_part_that_writes_them_down_stands_first(filled, gate) -> None:
    silent = {"id": "streaming_silent@x", "severity": "critical", "began_at": minute(0)}
    filled.memory.set_system({**RUNNING, "unwritten_alerts": [silent]}, event_time="")
    filled.sync()
    ids = [row["id"] for row in gate.get("/v1/alerts").json()["items"]]
    assert ids[0] == "streaming_silent@x"
    assert len(ids) == 3


def test_gaps_by_cursor_are_all_there_once_though_they_end_at_one_moment(gate) -> None:
    seen, cursor = [], ""
    while cursor is not None:
        answer = gate.get(f"/v1/gaps?limit=2{cursor and '&next=' + cursor}").json()
        seen += [(row["to_ns"], row["symbol"]) for row in answer["items"]]
        cursor = answer["next"]
    assert seen == [(n, s) for n in (4, 3, 2) for s in ("AAPL", "QQQ", "SPY")]


def test_gaps_of_a_span_are_filtered_before_they_are_counted(gate) -> None:
    span = "start=1970-01-01T00:00:00.000000003Z&end=1970-01-01T00:00:00.000000004Z"
    answer = gate.get(f"/v1/gaps?limit=3&{span}").json()
    assert [(row["to_ns"], row["symbol"]) for row in answer["items"]] == [
        (3, "AAPL"), (3, "QQQ"), (3, "SPY"),
    ]  # fmt: skip
    assert answer["next"] is None


@pytest.mark.parametrize("cursor", ["x", "dDE", "W10", "WzFd"])
def test_gap_cursor_of_a_stranger_is_422(gate, cursor: str) -> None:
    response = gate.get(f"/v1/gaps?next={cursor}")
    assert response.status_code == 422
    assert response.json()["error"]["detail"][0]["field"] == "next"


def test_platform_whose_producer_failed_is_not_ready_and_says_which_part(filled, gate) -> None:
    filled.memory.set_system(
        {**RUNNING, "producer": {"state": "failed", "error": "auth failed"}}, event_time=""
    )
    filled.sync()
    response = gate.get("/readyz")
    body = response.json()
    assert (response.status_code, body["status"]) == (503, "unavailable")
    assert body["parts"]["producer"] == "failed"
    assert body["reasons"] == ["producer: failed (auth failed)"]
    assert gate.get("/healthz").status_code == 200


def test_gateway_that_follows_nobody_lives_but_is_not_ready(filled, gate) -> None:
    filled.mirror.synced = False
    assert gate.get("/healthz").status_code == 200
    response = gate.get("/readyz")
    assert (response.status_code, response.json()["status"]) == (503, "starting")


@pytest.mark.parametrize(
    ("path", "status", "text", "cache"),
    [
        ("/", 200, "home", "no-cache"),
        ("/portfolio/", 200, "portfolio", "no-cache"),
        ("/portfolio", 200, "portfolio", "no-cache"),
        ("/nowhere/", 404, "lost", "no-cache"),
        ("/_next/static/a.js", 200, "1", "public, max-age=31536000, immutable"),
        ("/%2e%2e/%2e%2e/etc/passwd", 404, "lost", "no-cache"),
    ],
)
def test_dashboard_file_of_a_path(gate, path: str, status: int, text: str, cache: str) -> None:
    response = gate.get(path)
    assert response.status_code == status
    assert text in response.text
    assert response.headers["cache-control"] == cache


def test_documents_need_no_internet_and_cover_all_applications(gate) -> None:
    page = gate.get("/docs").text + gate.get("/docs.js").text
    assert "http" not in page.replace("http-equiv", "")
    document = gate.get("/openapi.json").json()
    assert {"/v1/signals", "/v1/signals/batch", "/v1/signals/{symbol}", "/v1/bars/{symbol}"} < set(
        document["paths"]
    )
    assert "SignalRequest" in document["components"]["schemas"]


def test_every_reference_of_the_document_leads_somewhere() -> None:
    document = complete(gateway.build())
    names = set(re.findall(r"#/components/schemas/(\w+)", orjson.dumps(document).decode()))
    assert names <= set(document["components"]["schemas"])


# ---- stream


def test_socket_subscribes_pings_and_is_told_of_errors(filled) -> None:
    app = stream.build(lambda: Quiet.of(filled))
    with served(app) as client, connect(client) as socket:
        say(socket, action="subscribe", channels=["trades"], symbols=["SPY"])
        assert hear(socket)["channel"] == "subscribed"
        update = hear(socket)
        assert list(update) == [
            "channel", "symbol", "seq", "event_time", "sent_at", "snapshot", "data",
        ]  # fmt: skip
        say(socket, action="ping")
        assert hear(socket)["channel"] == "pong"
        socket.send("{")
        assert hear(socket)["code"] == "bad_json"


def test_socket_of_a_client_that_is_gone_is_forgotten(filled, monkeypatch) -> None:
    hubs: list[Hub] = []
    joined = Hub.join

    def join(hub: Hub) -> Any:
        hubs.append(hub)
        return joined(hub)

    monkeypatch.setattr(Hub, "join", join)
    with served(stream.build(lambda: Quiet.of(filled))) as client:
        with connect(client) as socket:
            say(socket, action="ping")
            assert hear(socket)["channel"] == "pong"
            assert len(hubs[0].clients) == 1
        deadline = time.monotonic() + 5
        while hubs[0].clients and time.monotonic() < deadline:
            time.sleep(0.005)
    assert not hubs[0].clients


@pytest.mark.parametrize("origin", ["https://evil.example", "http://127.0.0.1:1", "null"])
def test_socket_of_a_foreign_page_is_refused(filled, origin: str) -> None:
    with (
        served(stream.build(lambda: Quiet.of(filled))) as client,
        pytest.raises(InvalidStatus) as caught,
        connect(client, origin),
    ):
        pass
    assert caught.value.response.status_code == 403


def test_socket_of_our_own_page_is_taken(filled) -> None:
    with served(stream.build(lambda: Quiet.of(filled))) as client:
        origin = f"http://127.0.0.1:{client.base_url.port}"
        with connect(client, origin) as socket:
            say(socket, action="ping")
            assert hear(socket)["channel"] == "pong"
