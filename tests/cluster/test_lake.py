"""``raytape query`` and ``raytape export`` without a platform."""

from __future__ import annotations

import io
from pathlib import Path

import orjson
import pytest
from rich.console import Console

from cluster import lake
from cluster.settings import load
from pipelines.errors import ConfigError, LakeError
from pipelines.lake.writer import LakeWriter
from rl.registry import ModelRef


@pytest.fixture
def settings(tmp_path):
    LakeWriter(str(tmp_path / "lake")).create(["trades"])
    return load(lake_uri=str(tmp_path / "lake"))


def ask(settings, sql: str, *, form: str = "table", out: Path | None = None, **more) -> str:
    text = io.StringIO()
    options = {"moment": None, "limit": 2} | more
    lake.query(settings, sql, form=form, out=out, console=Console(file=text, width=200), **options)
    return text.getvalue()


def test_query_prints_a_table_of_some_rows_and_says_how_many_there_are(settings):
    text = ask(settings, "SELECT range AS n FROM range(5)")
    assert text.split() == ["n", "0", "1", "2", "of", "5", "rows"]


def test_query_writes_a_file(settings, tmp_path):
    ask(settings, "SELECT 1 AS n", form="json", out=tmp_path / "a.json")
    assert orjson.loads((tmp_path / "a.json").read_bytes()) == [{"n": 1}]


def test_query_that_is_wrong_names_the_tables_there_are(settings):
    with pytest.raises(LakeError, match=r"tables: trades, quotes, .*trades_current"):
        ask(settings, "SELECT * FROM nowhere")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"form": "xml"}, "csv"), ({"out": Path("x")}, "--format"), ({"moment": "soon"}, "version")],
)
def test_query_with_a_wrong_option_says_what_is_possible(settings, wrong, says):
    with pytest.raises(ConfigError, match=says):
        ask(settings, "SELECT 1", **wrong)


def test_export_of_an_unknown_table_names_those_there_are(settings, tmp_path):
    with pytest.raises(LakeError, match="trades, quotes"):
        lake.export(
            settings, "ticks", partition_by="date", out=tmp_path / "o", moment=None,
            console=Console(file=io.StringIO()),
        )  # fmt: skip


def test_store_options_and_days_are_pairs_and_a_secret_is_not_shown(settings):
    chosen = load(
        storage_options="AWS_REGION=x, AWS_SECRET_ACCESS_KEY=hush=", lake_keep_days="bars=3"
    )
    assert chosen.store_options() == {"AWS_REGION": "x", "AWS_SECRET_ACCESS_KEY": "hush="}
    assert chosen.keep_days() == {"bars": 3}
    assert "hush" not in repr(chosen)
    with pytest.raises(ConfigError, match="RAYTAPE_STORAGE_OPTIONS") as error:
        load(storage_options="hush").store_options()
    assert "hush" not in str(error.value)
    with pytest.raises(ConfigError, match="RAYTAPE_LAKE_KEEP_DAYS"):
        load(lake_keep_days="bars=soon").keep_days()


def test_evaluations_are_kept_with_their_baselines(settings):
    rows = {
        "ppo-1:3": {"net_return": 0.1, "trades": 4, "baselines": {}},
        "hold": {"net_return": 0.0, "sharpe": None},
    }
    for _ in range(2):
        lake.keep_evaluation(settings, ModelRef("ppo-1", 3), rows)
    found = lake.lake(settings).sql("FROM evaluations ORDER BY event_time, policy DESC").to_pylist()
    assert [(r["policy"], r["net_return"], r["model_version"]) for r in found] == [
        ("ppo-1:3", 0.1, "3"), ("hold", 0.0, "3"),
    ] * 2  # fmt: skip
