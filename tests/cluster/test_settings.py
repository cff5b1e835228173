"""Settings are complete in .env.example, refuse bad values by name, and never show a secret."""

from pathlib import Path

import pytest

from cluster.settings import Settings, load
from pipelines.errors import ConfigError

EXAMPLE = Path(__file__).resolve().parents[2] / ".env.example"


def test_env_example_has_a_line_for_every_setting() -> None:
    text = EXAMPLE.read_text()
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        variable = alias.choices[0] if alias else f"RAYTAPE_{name.upper()}"
        assert f"#{variable}=" in text, variable
        assert field.description
        assert f"# {field.description}\n" in text, variable


def test_env_example_defaults_are_the_defaults(tmp_path: Path) -> None:
    lines = [line[1:] for line in EXAMPLE.read_text().splitlines() if line.startswith("#RAYTAPE_")]
    env = tmp_path / ".env"
    env.write_text("\n".join(line for line in lines if not line.endswith("=")))
    assert Settings(_env_file=env) == Settings(_env_file=None)


def test_load_wrong_value_names_variable_and_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYTAPE_GATEWAY_PORT", "eighty")
    with pytest.raises(ConfigError, match=r"RAYTAPE_GATEWAY_PORT='eighty'"):
        load()


def test_settings_repr_hides_alpaca_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APCA_API_KEY_ID", "PKVERYSECRET")
    monkeypatch.setenv("APCA_API_SECRET_KEY", "evenmoresecret")
    settings = load()
    assert settings.alpaca_key.get_secret_value() == "PKVERYSECRET"
    assert "PKVERY" not in repr(settings)
    assert "evenmore" not in repr(settings)


def test_symbols_are_split_upper_cased_and_unique(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYTAPE_SYMBOLS", "aapl, spy,AAPL")
    assert load().symbols == ("AAPL", "SPY")
