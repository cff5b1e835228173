"""What may be wrong with a question about signals. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.features.spec import FeatureSpec


class UnknownSymbol(LookupError):
    """Nobody follows this symbol."""


class OtherFeatures(ValueError):
    """The rows are of features that are not served."""


class WrongFeatures(ValueError):
    """A row has not as many features as are served.

    Args:
        field: Which row, as a request names it.
        message: What is wrong with it.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field, self.message = field, message


def check_fingerprint(spec: FeatureSpec, given: str | None) -> None:
    """Refuse features of another specification; ``None``: the caller does not say.

    Raises:
        OtherFeatures: They are others.
    """
    if given not in (None, spec.fingerprint):
        raise OtherFeatures(
            f"the features are {given}, but {spec.fingerprint} ({spec.name}) are served"
        )


def check_row(spec: FeatureSpec, row: Sequence[float | None] | None, *, field: str) -> None:
    """Refuse a row that is too short or too long.

    Args:
        spec: What is served.
        row: The features of one symbol, or none.
        field: What the request calls it.

    Raises:
        WrongFeatures: It is.

    >>> from pipelines.features.spec import FEATURE_SPEC
    >>> check_row(FEATURE_SPEC, [1.0] * 11, field="features")
    """
    if row is not None and len(row) != len(spec.names):
        raise WrongFeatures(
            field,
            f"{len(row)} were given, and {spec.name} has {len(spec.names)}: "
            f"{', '.join(spec.names)}",
        )
