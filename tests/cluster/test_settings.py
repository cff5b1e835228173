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


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("spark.a.b=1;", {"spark.a.b": "1"}),
        ("spark.x=a:b:1,c:d:2; spark.y=-Dk=v", {"spark.x": "a:b:1,c:d:2", "spark.y": "-Dk=v"}),
        ("spark.a=1\nspark.b=spark.c\n", {"spark.a": "1", "spark.b": "spark.c"}),
    ],
)
def test_spark_conf_is_pairs_whose_values_hold_commas_and_equals_signs(
    monkeypatch: pytest.MonkeyPatch, text: str, found: dict[str, str]
) -> None:
    monkeypatch.setenv("RAYTAPE_SPARK_CONF", text)
    assert load().spark_extra() == found


@pytest.mark.parametrize(
    "part", ["spark.a", "fs.s3a.endpoint=x", "spark.a=1,spark.b=2", "=1", "spark.=1"]
)
def test_spark_conf_that_is_no_pair_names_setting_value_and_way_out(part: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(spark_conf=f"spark.ok=1;{part}")
    assert f"RAYTAPE_SPARK_CONF: {part!r} is not" in str(error.value)
    assert "write a semicolon between two pairs" in str(error.value)


@pytest.mark.parametrize("name", ["secret.key", "access.key", "session.token", "proxy.password"])
def test_spark_conf_with_a_secret_is_never_shown(name: str) -> None:
    text = f"spark.hadoop.fs.s3a.{name}=hush"
    assert "hush" not in repr(load(spark_conf=text))
    with pytest.raises(ConfigError, match=r"RAYTAPE_SPARK_CONF: part 2 \(hidden\) is not") as error:
        load(spark_conf=f"{text};hushed")  # as if the secret held a semicolon
    assert "hush" not in str(error.value)


@pytest.mark.parametrize("parts", [0, 65])
def test_spark_state_parts_out_of_range_are_refused(parts: int) -> None:
    with pytest.raises(ConfigError, match=f"RAYTAPE_SPARK_STATE_PARTS={parts}"):
        load(spark_state_parts=parts)
