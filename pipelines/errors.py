"""The errors of raytape, one tree, so that an edge can catch exactly what it can handle.

::

    RaytapeError
    ├── ConfigError            a setting is wrong; the message names it and the way out
    ├── FeedError              the market-data feed refused or broke
    │   ├── FeedFatal          trying again cannot help (wrong key, no subscription)
    │   └── FeedTransient      trying again later can
    ├── MalformedFrame         a frame cannot be decoded; carries the raw bytes
    ├── StreamError            Kinesis refused or broke
    │   ├── StreamMissing      no such stream, or no such shard in it
    │   ├── StreamUnavailable  no answer in time; trying again later can help
    │   ├── DataLoss           records that were promised are gone; names the range
    │   └── StreamReplaced     the stream was deleted and made anew
    ├── LakeError              a table or a commit is not as expected
    │   └── Fenced             another writer with a newer generation owns the query
    ├── ModelError             a model cannot be used
    │   └── FingerprintMismatch  its features are not the features served
    ├── TapeFailed             a tape cannot be written; what was written of it is whole
    └── PartFailed             a part of the platform did not start; names part and log file
"""

from __future__ import annotations


class RaytapeError(Exception):
    """Base of every error that raytape raises on purpose."""


class ConfigError(RaytapeError):
    """A setting is wrong. The message names the setting, the value and the way out."""


class FeedError(RaytapeError):
    """The market-data feed refused or broke.

    Args:
        message: What happened.
        code: Alpaca's error code, where it gave one.
    """

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class FeedFatal(FeedError):
    """The feed refused in a way that trying again cannot change (401, 402, 409)."""


class FeedTransient(FeedError):
    """The feed broke in a way that trying again later can mend."""


class MalformedFrame(RaytapeError):
    """A frame from the wire cannot be decoded.

    Args:
        message: Why.
        raw: The frame as it came.
    """

    def __init__(self, message: str, *, raw: bytes) -> None:
        super().__init__(message)
        self.raw = raw


class StreamError(RaytapeError):
    """Kinesis refused or broke."""


class StreamMissing(StreamError):
    """There is no such stream, or no such shard in it."""


class StreamUnavailable(StreamError):
    """Kinesis did not answer in time, or throttled all along; trying again later can help."""


class DataLoss(StreamError):
    """Records that were promised are gone; the message names shard and missing range."""


class StreamReplaced(StreamError):
    """A stream of this name exists, but it is not the one that the offsets belong to."""


class LakeError(RaytapeError):
    """A table or a commit is not as expected."""


class Fenced(LakeError):
    """Another writer with a newer generation owns this query; this one must stop."""


class ModelError(RaytapeError):
    """A model cannot be used."""


class FingerprintMismatch(ModelError):
    """The features that a model was trained on are not the features that are served."""


class TapeFailed(RaytapeError):
    """A tape cannot be written (a full disk, mostly); what was written of it is whole."""


class PartFailed(RaytapeError):
    """A part of the platform did not start or died; the message names part, reason and log."""
