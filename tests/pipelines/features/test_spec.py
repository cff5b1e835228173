"""FeatureSpec 1: the names everyone relies on, and a fingerprint that notices a change."""

from __future__ import annotations

from dataclasses import replace

from pipelines.features import spec
from pipelines.features.spec import FEATURE_SPEC
from pipelines.lake.tables import FEATURE_COLUMNS


def test_names_are_the_columns_of_the_lake():
    assert FEATURE_SPEC.names == FEATURE_COLUMNS


def test_fingerprint_is_pinned():
    assert FEATURE_SPEC.fingerprint == "aa7c9ec683237ed0"


def test_fingerprint_changes_with_order_and_parameters():
    other_order = replace(FEATURE_SPEC, names=FEATURE_SPEC.names[::-1])
    parameters = {**FEATURE_SPEC.parameters, "rsi_14": {"bars": 15, "period": 15}}
    other_parameter = replace(FEATURE_SPEC, parameters=parameters)
    prints = {s.fingerprint for s in (FEATURE_SPEC, other_order, other_parameter)}
    assert len(prints) == 3


def test_table_of_formulas_names_every_feature():
    assert all(f"``{name}``" in (spec.__doc__ or "") for name in FEATURE_SPEC.names)
