from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import ConfigError
from pipelines.exchange.accounts import PLANS, Account, Accounts

ANYONE = Account(symbol_limit=5)


def _load(folder: Path, text: str) -> Accounts:
    path = folder / "accounts.json"
    path.write_text(text)
    return Accounts.load(path, anyone=ANYONE)


def test_accounts_without_a_file_take_every_pair_that_is_not_empty() -> None:
    accounts = Accounts.load(None, anyone=ANYONE)
    assert accounts.of("k", "s") is ANYONE
    assert accounts.of("", "s") is None
    assert accounts.of("k", "") is None


def test_accounts_take_no_key_that_is_no_text() -> None:
    assert Accounts(Account()).of("k\udcff", "s") is None


def test_account_takes_its_plan_unless_it_says_otherwise(tmp_path: Path) -> None:
    accounts = _load(tmp_path, '{"K": {"secret": "s", "symbol_limit": null, "feeds": ["sip"]}}')
    account = accounts.of("K", "s")
    assert account is not None
    assert account.feeds == ("sip",)
    assert account.symbol_limit is None
    assert account.connection_limit == PLANS["basic"].connection_limit


def test_account_never_shows_its_secret(tmp_path: Path) -> None:
    account = _load(tmp_path, '{"K": {"secret": "verysecret"}}').of("K", "verysecret")
    assert account is not None
    assert "verysecret" not in repr(account)


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "cannot be read"), ("[]", "must be an object"), ("{}", "must be an object"),
     ('{"K": 1}', "K: must be an object"), ('{"K": {}}', "K, secret"),
     ('{"K": {"secret": "s3cr3t", "plan": "gold"}}', "plan='gold'"),
     ('{"K": {"secret": "s3cr3t", "feeds": ["otc"]}}', r"feeds=\['otc'\]"),
     ('{"K": {"secret": "s3cr3t", "symbol_limit": 0}}', "symbol_limit=0"),
     ('{"K": {"secret": "s3cr3t", "colour": 1}}', "unknown colour")],
)  # fmt: skip
def test_accounts_wrong_file_is_refused_by_place_and_value(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        _load(tmp_path, text)
    assert "accounts.json" in str(refused.value)
    assert "s3cr3t" not in str(refused.value)
