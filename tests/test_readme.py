"""What the README shows exists: its commands, its folders, its picture."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from cluster.cli import app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_readme_first_command_comes_before_line_40() -> None:
    lines = README.splitlines()
    assert next(i for i, line in enumerate(lines) if line.startswith("make up")) < 40


@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"^(?:\| `)?make ([a-z]+)", README, re.M)))
)
def test_readme_make_target_exists_and_is_described(target: str) -> None:
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize("command", sorted(set(re.findall(r"raytape ([a-z]+)", README))))
def test_readme_raytape_command_exists(command: str) -> None:
    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    prose = {"takes", "lives"}
    assert command in commands | prose


def test_readme_options_exist() -> None:
    up = get_command(app).commands["up"]  # type: ignore[attr-defined]
    known = {option for parameter in up.params for option in parameter.opts}
    assert set(re.findall(r"(--[a-z]+)", README)) <= known


def test_readme_links_and_pictures_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_readme_lists_every_top_level_folder() -> None:
    for folder in ("cluster", "pipelines", "rl", "serve", "dashboard", "tests"):
        assert f"| `{folder}/` |" in README
