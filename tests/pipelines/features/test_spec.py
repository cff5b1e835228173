"""The specifications: names everyone relies on, and fingerprints that notice a change."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from pipelines.errors import ConfigError
from pipelines.features import spec
from pipelines.features.spec import EXTENDED_SPEC, FEATURE_SPEC, SPECS, spec_named, spec_of
from pipelines.lake.tables import EXTENDED_COLUMNS, FEATURE_COLUMNS


def test_names_are_the_columns_of_the_lake():
    assert FEATURE_SPEC.names == FEATURE_COLUMNS
    assert EXTENDED_SPEC.names == (*FEATURE_COLUMNS, *EXTENDED_COLUMNS)


def test_fingerprints_are_pinned():
    assert FEATURE_SPEC.fingerprint == "aa7c9ec683237ed0"
    assert EXTENDED_SPEC.fingerprint == "cb27e6fac42072ee"


def test_every_spec_begins_with_the_features_of_the_first():
    for known in SPECS.values():
        assert known.names[: len(FEATURE_SPEC.names)] == FEATURE_SPEC.names
        assert spec_named(known.name) is spec_of(known.fingerprint) is known


def test_unknown_name_is_refused_with_those_that_there_are():
    with pytest.raises(ConfigError, match="'daily'; there are intraday, intraday-extended"):
        spec_named("daily")


def test_spec_travels_to_another_process():
    again = pickle.loads(pickle.dumps(EXTENDED_SPEC))
    assert again == EXTENDED_SPEC
    assert again.fingerprint == EXTENDED_SPEC.fingerprint


def test_fingerprint_changes_with_order_and_parameters():
    other_order = replace(FEATURE_SPEC, names=FEATURE_SPEC.names[::-1])
    parameters = {**FEATURE_SPEC.parameters, "rsi_14": {"bars": 15, "period": 15}}
    other_parameter = replace(FEATURE_SPEC, parameters=parameters)
    prints = {s.fingerprint for s in (FEATURE_SPEC, other_order, other_parameter)}
    assert len(prints) == 3


def test_table_of_formulas_names_every_feature():
    text = spec.__doc__ or ""
    assert all(f"``{name}``" in text for name in FEATURE_SPEC.names)
    for name in EXTENDED_SPEC.names:
        assert name.rsplit("_", 1)[0] in text
