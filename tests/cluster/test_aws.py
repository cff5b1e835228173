"""`raytape aws plan`: a table, the reason, and a command to copy."""

from __future__ import annotations

import pytest

from cluster.aws import rates_of
from cluster.cli import main
from pipelines.errors import ConfigError


def test_aws_plan_prints_shards_reasons_and_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["aws", "plan", "--symbols", "AAPL,SPY", "--rate", "100", "--rate", "SPY=9000"])
    assert not ended.value.code
    said = capsys.readouterr().out
    assert "shards for 2 symbols, 9,100 msg/s" in said
    assert "bytes written a second" in said
    assert "hot: SPY" in said
    assert "aws kinesis create-stream --stream-name market-data --shard-count" in said


@pytest.mark.parametrize("text", ["fast", "SPY=", "=5", "-3", "SPY=-1"])
def test_aws_plan_with_a_rate_that_is_none_says_what_to_write(text: str) -> None:
    with pytest.raises(ConfigError, match="SYMBOL=NUMBER"):
        rates_of(["SPY"], [text])
