"""docs/LAKE.md names what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.lake.tables import TABLES
from pipelines.lake.views import VIEWS

TEXT = (Path(__file__).parents[3] / "docs" / "LAKE.md").read_text()


@pytest.mark.parametrize("name", TABLES)
def test_page_names_every_column_of_a_table(name):
    begin = TEXT.index(f"**`{name}`**")
    part = TEXT[begin : TEXT.find("**`", begin + 3)] + TEXT[: TEXT.index("**`")]
    assert [c for c in TABLES[name].schema.names if f"`{c}`" not in part] == []


def test_page_names_every_view():
    assert all(f"`{view.partition('(')[0]}" in TEXT for view in VIEWS)
