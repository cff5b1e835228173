"""The options of the source, checked: what is wrong is refused by name, before anything is read.

In: the text that ``readStream.format("kinesis").options(...)`` was given, in any case of letters.
Out: :class:`SourceOptions`. ``docs/KINESIS_SOURCE.md`` says more on each.

====================  ==================  ========================================================
option                default             meaning
====================  ==================  ========================================================
streamName            (this or the next)  name of the stream
streamArn             (this or the last)  its ARN; needed for a stream of another account
region                of the ARN, else    AWS region
                      us-east-1
endpointUrl           AWS                 address of an embedded Kinesis or a VPC endpoint
accessKey, secretKey  AWS's own chain     fixed credentials; better: the chain, or a role
roleArn               none                role to assume; renewed before its credentials end
roleSessionName       raytape             name of that session
roleExternalId        none                what the role's owner asks for
stsEndpointUrl        AWS                 address of an embedded STS
startingPosition      LATEST              used where there is no checkpoint; see
                                          :meth:`~pipelines.kinesis.begin.Begin.parse`
maxRecordsPerBatch    none                at most so many records in a batch
maxBytesPerBatch      33554432            at most about so many bytes in a batch
maxBytesInFirstBatch  maxBytesPerBatch    the same for the first batch of a run, which pays for
                                          cold workers: its rows come sooner after a restart
fetchSize             10000               records per GetRecords, at most 10000
inlineBytes           900000              a batch whose shard holds no more travels with its task
                                          and is read once, by the driver; 0: executors read all
readsPerSecond        2                   GetRecords per shard and second, of driver and executors
                                          together (the service allows 5 to all); 0: no limit
readMode              polling             ``polling`` or ``fanout`` (enhanced fan-out)
consumerName          (with fanout)       name that the fan-out consumer is registered under; one
                                          query each
failOnDataLoss        true                fail when records that are due are gone; else go on
onStreamReplaced      fail                ``fail`` or ``restart`` (from its oldest record) when
                                          the stream was deleted and made again
retryTimeoutS         180                 how long an executor tries a request
====================  ==================  ========================================================
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.errors import ConfigError
from pipelines.kinesis.begin import Begin
from pipelines.kinesis.clients import Role
from pipelines.kinesis.cursor import MAX_PAGE
from pipelines.kinesis.service import name_of
from pipelines.ports import KinesisConfig

_NAMES = (
    "streamName", "streamArn", "region", "endpointUrl", "accessKey", "secretKey", "roleArn",
    "roleSessionName", "roleExternalId", "stsEndpointUrl", "startingPosition",
    "maxRecordsPerBatch", "maxBytesPerBatch", "maxBytesInFirstBatch", "fetchSize", "inlineBytes",
    "readsPerSecond", "readMode", "consumerName", "failOnDataLoss", "onStreamReplaced",
    "retryTimeoutS",
)  # fmt: skip
_ARN = re.compile(r"arn:[\w-]+:kinesis:([\w-]+):\d{12}:stream/([\w.-]{1,128})")
_STREAM = re.compile(r"[\w.-]{1,128}")


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """The options of the source; see the module for their meaning.

    Args:
        stream: Name or ARN of the stream.
    """

    stream: str
    kinesis: KinesisConfig
    role: Role | None
    begin: Begin
    max_records: int | None
    max_bytes: int
    first_bytes: int
    fetch_size: int
    inline_bytes: int
    reads_per_s: float | None
    consumer: str | None
    fail_on_data_loss: bool
    restart_when_replaced: bool
    retry_timeout_s: float

    @property
    def name(self) -> str:
        """Name of the stream."""
        return name_of(self.stream)

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> SourceOptions:
        """The options of their text.

        Raises:
            ConfigError: One is unknown, missing or wrong; the message names it, its value and
                what is needed.
        """
        given = _Given(options)
        stream, region = given.stream()
        access = given.both("accessKey", "secretKey")
        max_records = given.text("maxRecordsPerBatch")
        max_bytes = given.whole("maxBytesPerBatch", "33554432")
        reads = given.number("readsPerSecond", "2", least=0)
        return cls(
            stream=stream,
            kinesis=KinesisConfig(
                region=region,
                endpoint_url=given.url("endpointUrl"),
                access_key=access[0],
                secret_key=access[1],
            ),
            role=given.role(),
            begin=Begin.parse(given.text("startingPosition") or "LATEST"),
            max_records=given.whole("maxRecordsPerBatch", "1") if max_records else None,
            max_bytes=max_bytes,
            first_bytes=min(max_bytes, given.whole("maxBytesInFirstBatch", str(max_bytes))),
            fetch_size=given.whole("fetchSize", str(MAX_PAGE), most=MAX_PAGE),
            inline_bytes=given.whole("inlineBytes", "900000", least=0),
            reads_per_s=reads or None,
            consumer=given.consumer(),
            fail_on_data_loss=given.choice("failOnDataLoss", "true", "false") == "true",
            restart_when_replaced=given.choice("onStreamReplaced", "fail", "restart") == "restart",
            retry_timeout_s=given.number("retryTimeoutS", "180", least=0.001),
        )


class _Given:
    """What was given, by name in any case of letters."""

    def __init__(self, options: Mapping[str, str]) -> None:
        known = {name.lower(): name for name in _NAMES}
        self._values: dict[str, str] = {}
        for key, value in options.items():
            name = known.get(key.lower())
            if name is None:
                raise _wrong(key, None, f"there is no such option; known: {', '.join(_NAMES)}")
            self._values[name] = str(value).strip()

    def text(self, name: str) -> str | None:
        return self._values.get(name) or None

    def stream(self) -> tuple[str, str]:
        """Name or ARN of the stream, and its region."""
        name, arn, region = self.text("streamName"), self.text("streamArn"), self.text("region")
        if (name is None) == (arn is None):
            raise _wrong("streamName", name, "one of streamName and streamArn is needed")
        if arn is None:
            assert name is not None  # noqa: S101
            if not _STREAM.fullmatch(name):
                raise _wrong("streamName", name, "need letters, digits, '_', '-', '.'; at most 128")
            return name, region or "us-east-1"
        found = _ARN.fullmatch(arn)
        if found is None:
            raise _wrong("streamArn", arn, "need arn:aws:kinesis:<region>:<account>:stream/<name>")
        if region not in {None, found[1]}:
            raise _wrong("region", region, f"the stream's ARN says {found[1]}; leave region out")
        return arn, found[1]

    def role(self) -> Role | None:
        arn = self.text("roleArn")
        if arn is None:
            for name in ("roleSessionName", "roleExternalId", "stsEndpointUrl"):
                if self.text(name):
                    raise _wrong(name, None, "is for a role; give roleArn too")
            return None
        if not re.fullmatch(r"arn:[\w-]+:iam::\d{12}:role/.+", arn):
            raise _wrong("roleArn", arn, "need arn:aws:iam::<account>:role/<name>")
        session = self.text("roleSessionName") or "raytape"
        if not re.fullmatch(r"[\w+=,.@-]{2,64}", session):
            raise _wrong(
                "roleSessionName", session, "need 2 to 64 letters, digits, or any of =,.@-"
            )
        return Role(arn, session, self.text("roleExternalId"), self.url("stsEndpointUrl"))

    def consumer(self) -> str | None:
        """Name of the fan-out consumer; ``None`` means polling."""
        mode, name = self.choice("readMode", "polling", "fanout"), self.text("consumerName")
        if mode == "polling":
            if name:
                raise _wrong("consumerName", name, "is for readMode=fanout")
            return None
        if not name or not _STREAM.fullmatch(name):
            raise _wrong("consumerName", name, "readMode=fanout needs one, of letters and digits")
        return name

    def both(self, one: str, other: str) -> tuple[str | None, str | None]:
        first, second = self.text(one), self.text(other)
        if (first is None) != (second is None):
            missing = one if first is None else other
            raise _wrong(missing, None, f"{one} and {other} go together; give both or none")
        return first, second

    def url(self, name: str) -> str | None:
        value = self.text(name)
        if value and not re.match(r"https?://[^/\s]+", value):
            raise _wrong(name, value, "need http://host:port or https://host")
        return value

    def number(self, name: str, default: str, *, least: float) -> float:
        value = self.text(name) or default
        try:
            number = float(value)
        except ValueError as error:
            raise _wrong(name, value, "need a number") from error
        if not least <= number < math.inf:
            raise _wrong(name, value, f"need a number of at least {least:g}")
        return number

    def whole(self, name: str, default: str, *, least: int = 1, most: int = 2**62) -> int:
        number = self.number(name, default, least=least)
        if number != int(number) or number > most:
            limit = f"{least} to {most}" if most < 2**62 else f"{least} or more"
            raise _wrong(name, self.text(name), f"need a whole number, {limit}")
        return int(number)

    def choice(self, name: str, default: str, other: str) -> str:
        value = (self.text(name) or default).lower()
        if value not in {default, other}:
            raise _wrong(name, value, f"need {default} or {other}")
        return value


def _wrong(name: str, value: str | None, way_out: str) -> ConfigError:
    # A secret is never wrong by its value, so none can stand here.
    shown = "" if value is None else f"={value!r}"
    return ConfigError(f"kinesis source: option {name}{shown}: {way_out}")


def source_options(config: KinesisConfig, stream: str, **options: object) -> dict[str, str]:
    """Options for ``readStream.format("kinesis").options(**...)`` that read a stream of a config.

    Args:
        config: Where the stream is.
        stream: Its name.
        options: Further options of the source by name; ``None`` leaves one out.
    """
    found = {"streamName": stream, "region": config.region}
    if config.endpoint_url:
        found["endpointUrl"] = config.endpoint_url
    if config.access_key and config.secret_key:
        found |= {"accessKey": config.access_key, "secretKey": config.secret_key}
    return found | {name: str(value) for name, value in options.items() if value is not None}
