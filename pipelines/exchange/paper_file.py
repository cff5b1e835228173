"""The file of the paper accounts: those of every market that was played beside it.

It is replaced in one step and brought to disk before that, so it is whole whatever dies. Only the
accounts that changed are made into text again; the text of the others is kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import orjson

from pipelines.errors import ConfigError

Plain = dict[str, Any]
"""One account as JSON types."""


class PaperFile:
    """Keeps accounts over restarts; may be written from any thread.

    Args:
        path: The file.
        market: The market whose accounts are written; those of others stay as they are.

    Raises:
        ConfigError: The file is there but is not ours.
    """

    def __init__(self, path: Path, *, market: str) -> None:
        self._path = path
        self._market = market
        self._lock = Lock()
        stored: dict[str, dict[str, Plain]] = {}
        if path.is_file():
            try:
                stored = dict(orjson.loads(path.read_bytes()))
                self.accounts: Mapping[str, Plain] = dict(stored.pop(market, {}))
                self._texts = {name: orjson.dumps(plain) for name, plain in self.accounts.items()}
            except (TypeError, ValueError, AttributeError) as error:
                raise self.refused(error) from error
        else:
            self.accounts, self._texts = {}, {}
        self._others = {name: orjson.Fragment(orjson.dumps(of)) for name, of in stored.items()}

    def refused(self, why: Exception) -> ConfigError:
        """The error of a file that holds something else."""
        return ConfigError(
            f"paper accounts {self._path}: cannot be read ({why!r}); remove it to begin anew"
        )

    def write(self, changed: Mapping[str, Callable[[], Plain]]) -> None:
        """Write the file.

        Args:
            changed: What makes JSON types of the accounts that changed, by name.

        Raises:
            OSError: It cannot be written; what is there stays.
        """
        with self._lock:
            self._texts.update({name: orjson.dumps(plain()) for name, plain in changed.items()})
            mine = {name: orjson.Fragment(text) for name, text in self._texts.items()}
            text = orjson.dumps({**self._others, self._market: mine})
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._path.with_name(self._path.name + ".new")
            with fresh.open("wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
