"""Who may import whom (DESIGN §2), and that each third-party library stays where it belongs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = ("cluster", "pipelines", "rl", "serve")

# Package → the packages (or single modules) of ours that it may import, besides itself.
ALLOWED: dict[str, set[str]] = {
    "pipelines": set(),
    "pipelines.features": {"pipelines"},
    "pipelines.ingest": {"pipelines"},
    "pipelines.exchange": {"pipelines"},
    "pipelines.kinesis": {"pipelines"},
    "pipelines.lake": {"pipelines"},
    "pipelines.streaming": {
        "pipelines", "pipelines.features", "pipelines.kinesis", "pipelines.lake",
    },
    "rl": {"pipelines", "pipelines.features", "pipelines.lake"},
    "serve": {
        "pipelines", "pipelines.features", "pipelines.kinesis.reader", "pipelines.lake.query",
        "rl.registry", "rl.account",
    },
    "cluster": {
        "pipelines", "pipelines.features", "pipelines.ingest", "pipelines.exchange",
        "pipelines.kinesis", "pipelines.lake", "pipelines.streaming", "rl", "serve",
    },
}  # fmt: skip

# Library → the packages or modules of ours that may import it.
CONFINED: dict[str, set[str]] = {
    "websocket": {"pipelines.ingest.alpaca_stream"},
    "alpaca": {"pipelines.history"},
    "exchange_calendars": {"pipelines.calendar"},
    "talib": {"pipelines.features"},
    "deltalake": {"pipelines.lake"},
    "duckdb": {"pipelines.lake.query"},
    "raydp": {"pipelines.streaming.session"},
    "river": {"pipelines.streaming.outliers"},
    "pyspark": {"pipelines.streaming", "pipelines.kinesis.source"},
    "aiohttp": {"pipelines.exchange"},
    "msgspec": {"pipelines.ticks"},
    "boto3": {"pipelines.kinesis", "cluster.local_aws", "cluster.aws"},
    "torch": {"rl"},
    "gymnasium": {"rl"},
    "onnxruntime": {"rl", "serve.models"},
    "fastapi": {"serve"},
    "typer": {"cluster.cli"},
    "rich": {"cluster"},
    "pydantic_settings": {"cluster.settings"},
}


def package_of(module: str) -> str:
    """The entry of ALLOWED that a module of ours belongs to."""
    parts = module.split(".")
    two = ".".join(parts[:2])
    return two if two in ALLOWED else parts[0]


def modules() -> list[tuple[str, Path]]:
    found = []
    for top in OURS:
        for path in sorted((ROOT / top).rglob("*.py")):
            if "node_modules" not in path.parts:
                parts = path.relative_to(ROOT).with_suffix("").parts
                found.append((".".join(p for p in parts if p != "__init__"), path))
    return found


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inside(module: str, places: set[str]) -> bool:
    return any(module == place or module.startswith(place + ".") for place in places)


@pytest.mark.parametrize(
    ("module", "path"), modules(), ids=lambda v: str(v) if isinstance(v, str) else ""
)
def test_module_imports_only_what_its_package_may(module: str, path: Path) -> None:
    mine = package_of(module)
    for name in imports(path):
        top = name.split(".")[0]
        if top in OURS:
            theirs = package_of(name)
            if theirs == mine or theirs in ALLOWED[mine]:
                continue
            single = {a for a in ALLOWED[mine] if a not in ALLOWED}
            parents = {a.rsplit(".", 1)[0] for a in single}
            assert inside(name, single) or name in parents, f"{module} imports {name}"
        elif top in CONFINED:
            assert inside(module, CONFINED[top]), f"{module} imports {top}"


def test_imports_never_import_our_serve_as_a_bare_name() -> None:
    for module, path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert all(a.name != "serve" for a in node.names), f"{module}: import serve"


def test_environment_is_read_only_by_settings() -> None:
    for module, path in modules():
        if module in {
            "cluster.settings",
            "cluster.runtime",
            "cluster.processes",
            "cluster.local_aws",
            "pipelines.streaming.session",
            "pipelines.streaming.class_archive",
        }:
            continue  # the last four hand the environment on to children
        text = path.read_text()
        assert "os.environ" not in text and "os.getenv" not in text, module
