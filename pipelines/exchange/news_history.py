"""News of the past as the vendor's REST interface pages them. Pure.

Articles are those that the live stream published, ordered by the time of their last update.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.events import Message
from pipelines.exchange.asked import Range
from pipelines.exchange.market import BarSource
from pipelines.exchange.news import Item
from pipelines.exchange.paging import Place


class NewsHistory:
    """Answers queries about the news of a market.

    Args:
        source: The market.
    """

    def __init__(self, source: BarSource) -> None:
        self._source = source

    def page(
        self, span: Range, *, content: bool, only_with_content: bool
    ) -> tuple[list[Message], str | None]:
        """One page of articles, and the token of the next page.

        Args:
            span: Whose (all, if no symbol is named), when, how many.
            content: Whether the text comes along.
            only_with_content: Whether articles without a text are left out.

        Raises:
            Refused: The token is none of ours.
        """
        place = Place.of(span.token)
        found: list[Message] = []
        last = Place("", 0, 0)
        for item in self._items(span, place):
            message = item.message()
            if only_with_content and not message.get("content"):
                continue
            if len(found) == span.limit:
                return found, last.token()
            found.append(_article(message, content=content))
            last = Place("", item.at_ns, last.count + 1 if last.ns == item.at_ns else 1)
        return found, None

    def _items(self, span: Range, place: Place | None) -> Iterator[Item]:
        """The items of a range in its order, beyond a place."""
        wanted = set(span.symbols)
        start_ns, end_ns = span.start_ns, span.end_ns
        if place is not None and span.descending:
            end_ns = min(end_ns, place.ns)
        elif place is not None:
            start_ns = max(start_ns, place.ns)
        given = place.count if place is not None else 0
        sessions = self._source.sessions(start_ns, end_ns) if start_ns <= end_ns else ()
        for session in reversed(sessions) if span.descending else sessions:
            items = self._source.news(session)
            for item in reversed(items) if span.descending else items:
                if not start_ns <= item.at_ns <= end_ns:
                    continue
                if wanted and wanted.isdisjoint(item.symbol.split(",")):  # recorded: of several
                    continue
                if place is not None and item.at_ns == place.ns and given:
                    given -= 1
                    continue
                yield item


def _article(message: Message, *, content: bool) -> Message:
    article = {key: value for key, value in message.items() if key != "T"}
    if not content:
        article["content"] = ""
    return {**article, "images": []}
