"""Every route of the OpenAPI document: described whole, and never surprised by what it is asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote as escaped

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from serve import platform_schemas, schemas
from serve.api import gateway, signals
from serve.api.docs import complete
from serve.lake import ServedLake
from tests.serve.conftest import bar, features_item, make_bench, quote, record, served, trade
from tests.serve.test_api import RUNNING, Quiet

Ask = Callable[..., httpx.Response]
DOCUMENT = complete(gateway.build())
ROUTES = [(path, how, op) for path, ops in DOCUMENT["paths"].items() for how, op in ops.items()]
LISTINGS = [(path, op) for path, how, op in ROUTES if how == "get" and op.get("parameters")]
BODIES = [(path, op) for path, how, op in ROUTES if how == "post"]
LEDGER = {
    "as_of": None, "balance": [], "stages": {},
    **dict.fromkeys(("received", "stored", "duplicates", "quarantined", "in_flight")),
    **dict.fromkeys(("imbalance", "lost", "holes", "gaps")),
}  # fmt: skip


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Asks the gateway and the signals: a market in memory, and a real lake without rows."""
    bench = make_bench()
    bench.memory.apply_record(record(trade(), quote(), bar(i=0), trade(s=61, price=102)))
    bench.memory.apply_items([features_item()])
    bench.memory.set_system(RUNNING | {"ledger": LEDGER}, event_time="")
    bench.sync()
    lake = ServedLake(str(tmp_path_factory.mktemp("lake")))
    parts = gateway.GatewayParts(
        mirror=Quiet.of(bench), symbols=("SPY", "AAPL"), lake=lake, models=list,
    )  # fmt: skip
    asked = signals.build(lambda: signals.SignalParts(bench.mirror, bench.policy, bench.service))
    with served(gateway.build(lambda: parts)) as most, served(asked) as rest:

        def ask(how: str, path: str, **options: Any) -> httpx.Response:
            mine = rest if path.startswith(signals.PREFIX) else most
            return mine.request(how, path, **options)

        yield ask


def _schema(op: Any, status: str) -> str | None:
    content = op["responses"].get(status, {}).get("content", {})
    ref = content.get("application/json", {}).get("schema", {}).get("$ref", "")
    return ref.rpartition("/")[2] or None


@pytest.mark.parametrize(("path", "how", "op"), ROUTES, ids=[f"{h} {p}" for p, h, _ in ROUTES])
def test_route_is_described_with_its_answer_its_errors_and_every_parameter(
    path: str, how: str, op: Any
) -> None:
    assert op.get("tags"), "no tag"
    assert op.get("summary"), "no summary"
    assert op.get("description"), "no description"
    answer = _schema(op, "200")
    assert answer in DOCUMENT["components"]["schemas"]
    for name, field in DOCUMENT["components"]["schemas"][answer]["properties"].items():
        assert field.get("type") or field.keys() & {"anyOf", "$ref", "enum", "const"}, name
    if path in ("/healthz", "/v1/symbols"):  # nothing can go wrong
        return
    if path == "/readyz":
        assert _schema(op, "503") == "Health"
        return
    assert _schema(op, "503") == "ErrorAnswer"
    if op.get("parameters") or op.get("requestBody"):
        assert _schema(op, "422") == "ErrorAnswer"
    assert all(p.get("description") for p in op.get("parameters", ()))


odd = st.one_of(
    st.text(max_size=40),
    st.integers().map(str),
    st.floats().map(str),
    st.datetimes().map(lambda t: t.isoformat() + "Z"),
    st.sampled_from(
        ["", "*", "SPY", "spy", "../..", "%00", "'; DROP TABLE trades --", "null", "true", "1e999",
         "2024-07-05T13:30:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z",
         "2024-07-05T13:30:00+99:99", "2024-02-30T00:00:00Z", "W10", "A" * 2_000]
    ),
)  # fmt: skip


def _plain(text: str) -> str:
    """What can stand in an address: UTF-8 has no half surrogate pairs."""
    return text.encode("utf-8", "replace").decode()


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_listing_that_is_asked_oddly_answers_or_refuses_by_name(ask: Ask, data: Any) -> None:
    path, op = data.draw(st.sampled_from(LISTINGS))
    known = {p["name"]: p["in"] for p in op["parameters"]}
    chosen = data.draw(st.dictionaries(st.sampled_from(sorted(known)), odd))
    for name, where in known.items():
        if where == "path":
            value = _plain(chosen.get(name, "SPY")) or "SPY"
            path = path.replace(f"{{{name}}}", escaped(value, safe=""))
    query = {n: _plain(v) for n, v in chosen.items() if known[n] == "query"}
    answer = ask("GET", path, params=query)
    assert answer.status_code in (200, 404, 422), answer.text
    body = answer.json()
    if answer.status_code == 200:
        model = _schema(op, "200")
        found = getattr(schemas, str(model), None) or getattr(platform_schemas, str(model))
        TypeAdapter(found).validate_python(body)
    else:
        platform_schemas.ErrorAnswer(**body)
    if answer.status_code == 422:
        wrong = {problem["field"].rpartition(".")[2] for problem in body["error"]["detail"]}
        assert wrong <= known.keys(), body
        assert all(problem["message"] for problem in body["error"]["detail"])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
features = st.lists(st.floats() | st.none(), min_size=10, max_size=12)
bodies = st.one_of(
    json_values,
    st.fixed_dictionaries(
        {},
        optional={
            "symbol": st.sampled_from(["SPY", "ZZZ", "é", ""]) | json_values,
            "symbols": st.lists(st.sampled_from(["SPY", "AAPL"]), max_size=3) | json_values,
            "features": features | st.lists(features, max_size=3) | json_values,
            "bars": st.lists(
                st.fixed_dictionaries(
                    {"event_time": odd, "open": st.floats(), "close": st.floats()}
                )
                | st.none(),
                max_size=3,
            ),
            "reasons": st.lists(st.sampled_from([None, "gap", "x"]), max_size=3),
            "position_fraction": st.floats() | json_values,
            "extra": json_values,
        },
    ),
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(BODIES), bodies | st.binary(max_size=30))
def test_body_that_is_odd_is_answered_or_refused_by_field(ask: Ask, route: Any, body: Any) -> None:
    path, op = route
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = ask("POST", path, content=content)
    assert answer.status_code in (200, 404, 409, 422), answer.text
    if answer.status_code == 200:
        TypeAdapter(getattr(schemas, str(_schema(op, "200")))).validate_python(answer.json())
    else:
        platform_schemas.ErrorAnswer(**answer.json())


@pytest.mark.parametrize("path", sorted({path for path, _, _ in ROUTES}))
def test_route_asked_in_a_way_it_does_not_know_is_405_in_the_envelope(ask: Ask, path: str) -> None:
    answer = ask("DELETE", path.replace("{symbol}", "SPY"))
    assert answer.status_code == 405
    assert answer.json()["error"]["code"] == "method_not_allowed"
