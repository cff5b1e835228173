"""The last message of each channel and symbol that was published."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.events import Message
from pipelines.exchange.frames import Batch, Key, date_message


class Latest:
    """Remembers; a message gets its time as text only when somebody asks for it.

    Most never are, and the text of a time costs as much as half of a message.
    """

    def __init__(self) -> None:
        self._last: dict[Key, tuple[Message, int | None]] = {}

    def update(self, batch: Batch) -> None:
        """Take note of what was published."""
        self._last.update(batch.last_of_each())

    def get(self, key: Key) -> Message | None:
        """The last message of a channel and symbol, or ``None``."""
        found = self._last.get(key)
        if found is None:
            return None
        message, ns = found
        if ns is not None:
            date_message(message, ns)
            self._last[key] = (message, None)
        return message

    def items(self) -> Iterator[tuple[Key, Message]]:
        """Each channel and symbol with its last message."""
        for key in tuple(self._last):
            message = self.get(key)
            if message is not None:
                yield key, message

    def __contains__(self, key: Key) -> bool:
        return key in self._last
