"""The registry: versions, promotion, damage."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from pipelines.errors import FingerprintMismatch, ModelError
from rl.registry import Manifest, ModelRef, Registry


def manifest(**changes: object) -> Manifest:
    fields: dict = {
        "id": "ppo",
        "kind": "ppo",
        "fingerprint": "f" * 16,
        "feature_names": tuple(f"f{i}" for i in range(11)),
        "inputs": (*(f"f{i}" for i in range(11)), "position_fraction", "cash_fraction"),
        "metrics": {"sharpe": 1.5, "nested": {"a": [1, 2]}},
    }
    return Manifest(**(fields | changes))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(str(tmp_path / "models"))


def test_registry_when_empty_has_nothing_and_promotes_nothing(registry: Registry) -> None:
    assert registry.list() == []
    assert registry.promoted() is None


def test_registry_register_twice_counts_versions(registry: Registry) -> None:
    first = registry.register(manifest(), b"one")
    second = registry.register(manifest(), b"two")
    assert (first, second) == (ModelRef("ppo", 1), ModelRef("ppo", 2))
    assert [m.ref for m in registry.list()] == [first, second]
    assert registry.load(first)[1] == b"one"


def test_registry_load_gives_the_manifest_back(registry: Registry) -> None:
    ref = registry.register(manifest(created_at="2026-01-01T00:00:00Z"), b"one")
    loaded, _ = registry.load(ref)
    assert loaded.metrics == {"sharpe": 1.5, "nested": {"a": [1, 2]}}
    assert loaded.created_at == "2026-01-01T00:00:00Z"
    assert loaded.inputs == manifest().inputs


def test_registry_promote_is_seen_by_another_reader(registry: Registry) -> None:
    ref = registry.register(manifest(), b"one")
    registry.promote(ref, reason="bootstrap")
    other = Registry(registry.root_uri)
    assert other.promoted() == ref
    promotion = other.promotion()
    assert promotion is not None
    assert promotion["reason"] == "bootstrap"


def test_registry_load_of_a_damaged_file_is_refused(registry: Registry) -> None:
    ref = registry.register(manifest(), b"one")
    Path(registry.root_uri, "ppo", "1", "model.onnx").write_bytes(b"other")
    with pytest.raises(ModelError, match="not the one"):
        registry.load(ref)
    with pytest.raises(ModelError):
        registry.promote(ref)


def test_registry_load_for_other_features_is_refused(registry: Registry) -> None:
    ref = registry.register(manifest(), b"one")
    registry.load(ref, expected_fingerprint="f" * 16)
    with pytest.raises(FingerprintMismatch):
        registry.load(ref, expected_fingerprint="0" * 16)


def test_registry_version_without_manifest_does_not_exist(registry: Registry) -> None:
    Path(registry.root_uri, "ppo", "1").mkdir(parents=True)
    assert registry.list() == []
    with pytest.raises(ModelError):
        registry.load(ModelRef("ppo", 1))
    assert registry.register(manifest(), b"x") == ModelRef("ppo", 2)


def test_registry_manifest_with_nan_is_refused(registry: Registry) -> None:
    with pytest.raises(ModelError, match="NaN"):
        registry.register(manifest(metrics={"sharpe": float("nan")}), b"x")


def test_registry_verdict_is_kept_with_its_version(registry: Registry) -> None:
    ref = registry.register(manifest(), b"one")
    assert registry.verdict(ref) is None
    registry.write_verdict(ref, {"promoted": False, "reason": "degenerate"})
    assert registry.verdict(ref) == {"promoted": False, "reason": "degenerate"}


@pytest.mark.parametrize("text", ["ppo", "ppo:x", "../evil:1", "ppo:0", ":1"])
def test_ref_of_a_bad_name_is_refused(text: str) -> None:
    with pytest.raises(ModelError):
        ModelRef.parse(text)


def test_registry_on_s3_keeps_and_promotes_models() -> None:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        options = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/models", method="PUT")).close()
        registry = Registry("s3://models/raytape", storage_options=options)
        assert registry.promoted() is None
        first = registry.register(manifest(), b"one")
        second = registry.register(manifest(), b"two")
        assert second.version == 2
        registry.promote(first)
        registry.promote(second)
        other = Registry("s3://models/raytape", storage_options=options)
        assert other.promoted() == second
        assert [m.ref for m in other.list()] == [first, second]
        assert other.load(second)[1] == b"two"
        assert "test" not in repr(other)
    finally:
        server.stop()
