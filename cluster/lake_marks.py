"""What the lake holds, for the producer: neither of the two packages knows the other."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.lake import archive_state
from pipelines.lake.query import LakeQuery


class LakeMarks:
    """A :class:`~pipelines.ports.StoredMarks` over the archive's state.

    Args:
        uri: The lake.
        storage_options: Credentials and endpoint of its store.
    """

    def __init__(self, uri: str, storage_options: Mapping[str, str] | None = None) -> None:
        self._query = LakeQuery(uri, storage_options)

    def marks(self) -> Mapping[str, Mapping[int, int]]:
        """Per epoch and bucket, the last record that the lake holds; empty before the first.

        Raises:
            LakeError: The lake cannot be read now.
        """
        return archive_state.load(self._query).marks
