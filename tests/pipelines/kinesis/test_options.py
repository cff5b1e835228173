"""The options of the source: what is wrong is refused by name, value and way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import ConfigError
from pipelines.kinesis import options
from pipelines.kinesis.offsets import Position
from pipelines.kinesis.options import SourceOptions

ARN = "arn:aws:kinesis:eu-west-1:123456789012:stream/ticks"
ROLE = "arn:aws:iam::123456789012:role/reader"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "streamName: one of streamName and streamArn is needed"),
        ({"streamName": "s", "streamArn": ARN}, "one of streamName and streamArn"),
        ({"streamName": "a b"}, "streamName='a b': need letters"),
        ({"streamArn": "arn:aws:s3:::x"}, "streamArn='arn:aws:s3:::x': need arn:aws:kinesis"),
        ({"streamArn": ARN, "region": "us-east-1"}, "region='us-east-1': .* says eu-west-1"),
        ({"streamName": "s", "endpointUrl": "here"}, "endpointUrl='here': need http"),
        ({"streamName": "s", "accessKey": "k"}, "secretKey: .* give both or none"),
        ({"streamName": "s", "roleArn": "reader"}, "roleArn='reader': need arn:aws:iam"),
        ({"streamName": "s", "roleExternalId": "x"}, "roleExternalId: is for a role"),
        ({"streamName": "s", "roleArn": ROLE, "roleSessionName": "a b"}, "roleSessionName='a b'"),
        ({"streamName": "s", "startingPosition": "NEWEST"}, "startingPosition='NEWEST': need LAT"),
        ({"streamName": "s", "startingPosition": "AT_TIMESTAMP:2026-01-01T00:00:00"}, "with zone"),
        ({"streamName": "s", "startingPosition": '{"shard": "behind:1"}'}, "startingPosition="),
        ({"streamName": "s", "fetchSize": "many"}, "fetchSize='many': need a number"),
        ({"streamName": "s", "fetchSize": "20000"}, "fetchSize='20000': need .* 1 to 10000"),
        ({"streamName": "s", "maxRecordsPerBatch": "1.5"}, "maxRecordsPerBatch='1.5': need a"),
        ({"streamName": "s", "maxBytesInFirstBatch": "0"}, "maxBytesInFirstBatch='0': .* least 1"),
        ({"streamName": "s", "maxBytesPerBatch": "0"}, "maxBytesPerBatch='0': .* at least 1"),
        ({"streamName": "s", "readsPerSecond": "-1"}, "readsPerSecond='-1': .* at least 0"),
        ({"streamName": "s", "readMode": "push"}, "readMode='push': need polling or fanout"),
        ({"streamName": "s", "readMode": "fanout"}, "consumerName: readMode=fanout needs one"),
        ({"streamName": "s", "consumerName": "c"}, "consumerName='c': is for readMode=fanout"),
        ({"streamName": "s", "failOnDataLoss": "maybe"}, "failOnDataLoss='maybe': need true or"),
        ({"streamName": "s", "onStreamReplaced": "x"}, "onStreamReplaced='x': need fail or rest"),
        ({"streamName": "s", "fetchsise": "9"}, "fetchsise: there is no such option; known: str"),
    ],
)  # fmt: skip
def test_options_that_are_wrong_are_refused_by_name(given: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SourceOptions.parse(given)


def test_options_in_any_case_of_letters_are_known() -> None:
    found = SourceOptions.parse({"STREAMNAME": "s", "startingposition": "trim_horizon"})
    assert (found.stream, found.begin.kind) == ("s", "TRIM_HORIZON")


def test_options_by_default_keep_the_read_budget_and_fail_on_loss() -> None:
    found = SourceOptions.parse({"streamName": "s"})
    assert (found.reads_per_s, found.fail_on_data_loss, found.begin.kind) == (2, True, "LATEST")
    assert SourceOptions.parse({"streamName": "s", "readsPerSecond": "0"}).reads_per_s is None


def test_options_with_an_arn_take_name_and_region_from_it() -> None:
    found = SourceOptions.parse({"streamArn": ARN})
    assert (found.stream, found.name, found.kinesis.region) == (ARN, "ticks", "eu-west-1")


def test_options_with_exact_places_take_json_and_an_end_offset_of_a_progress() -> None:
    places = '{"shardId-1": "after:7", "shardId-2": "horizon", "shardId-3": "9"}'
    begin = SourceOptions.parse({"streamName": "s", "startingPosition": places}).begin
    assert begin.places == {
        "shardId-1": Position("after", 7),
        "shardId-2": Position("horizon"),
        "shardId-3": Position("after", 9),
    }
    offset = '{"v": 1, "stream": "s", "shards": {"shardId-1": {"end": "after:7"}}}'
    begin = SourceOptions.parse({"streamName": "s", "startingPosition": offset}).begin
    assert begin.places == {"shardId-1": Position("after", 7)}


def test_options_with_a_role_never_show_what_is_secret() -> None:
    found = SourceOptions.parse(
        {
            "streamName": "s", "roleArn": ROLE, "roleExternalId": "hush", "accessKey": "AKIA",
            "secretKey": "hush",
        }
    )  # fmt: skip
    assert found.role is not None
    assert found.role.external_id == "hush"
    assert "hush" not in repr(found)
    assert "AKIA" not in repr(found)


def test_options_are_all_in_the_documentation() -> None:
    page = (Path(__file__).parents[3] / "docs" / "KINESIS_SOURCE.md").read_text()
    assert [name for name in options._NAMES if f"`{name}`" not in page] == []
    assert [name for name in options._NAMES if name not in str(options.__doc__)] == []
