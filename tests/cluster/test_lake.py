"""``raytape query`` and ``raytape export`` without a platform."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pyarrow as pa
import pytest
from rich.console import Console

from cluster import lake
from cluster.settings import load
from pipelines.errors import ConfigError, LakeError
from pipelines.lake.tables import TABLES
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
    assert text.split() == ["n", "0", "1", *["2", "of", "5", "rows;", "--limit", "shows", "more"]]


def test_query_too_wide_for_a_terminal_prints_a_record_at_a_time_and_elsewhere_a_line(settings):
    sql = "SELECT 'x' AS narrow, repeat('y', 90) AS wide, TIMESTAMPTZ '2011-01-03 14:30Z' AS at"
    for terminal, lines in ((True, 4), (False, 2)):
        text = io.StringIO()
        console = Console(file=text, width=80, force_terminal=terminal, no_color=True)
        lake.query(settings, sql, form="table", out=None, moment=None, limit=5, console=console)
        assert len(text.getvalue().splitlines()) == lines
        assert "y" * 90 in text.getvalue()
        assert "2011-01-03T14:30:00Z" in text.getvalue()


def test_query_that_ends_early_ends_its_process_in_order(settings):
    """Threads that read on must not hang or crash an interpreter that shuts down."""
    writer = LakeWriter(str(settings.lake_uri))
    generation = writer.open_query("q", tables=["evaluations"])
    wanted = TABLES["evaluations"].schema
    row = dict.fromkeys(wanted.names) | {"event_time": datetime(2011, 1, 3, tzinfo=UTC)}
    row["date"] = row["event_time"].date()
    for batch in range(12):
        rows = pa.Table.from_pylist([row] * 10, schema=wanted)
        writer.commit("evaluations", rows, query_id="q", batch_id=batch, generation=generation)
    done = subprocess.run(
        [Path(sys.executable).with_name("raytape"), "query", "FROM evaluations LIMIT 1",
         "--format", "csv"],
        env={**os.environ, "RAYTAPE_LAKE_URI": str(settings.lake_uri)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2), done.stderr


def test_query_writes_a_file(settings, tmp_path):
    ask(settings, "SELECT 1 AS n", form="json", out=tmp_path / "a.json")
    assert orjson.loads((tmp_path / "a.json").read_bytes()) == [{"n": 1}]


def test_query_that_is_wrong_names_the_tables_there_are(settings):
    with pytest.raises(LakeError, match=r"tables: trades, quotes, .*trades_current"):
        ask(settings, "SELECT * FROM nowhere")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"form": "csv", "out": Path("/nowhere/x.csv")}, "No such file"),
        ({"form": "xml"}, "csv"),
        ({"out": Path("x")}, "--format"),
        ({"moment": "soon"}, "version"),
    ],
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
