"""Where the next page of an answer begins: an opaque token of symbol, time and a count. Pure."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from pipelines.exchange.refusals import Refused


@dataclass(frozen=True, slots=True)
class Place:
    """The last item of a page.

    Args:
        symbol: Whose it is.
        ns: Its time.
        count: How many items of the symbol with that time were given already.
    """

    symbol: str
    ns: int
    count: int = 1

    def token(self) -> str:
        """Its text.

        >>> Place.of(Place("SPY", 7).token())
        Place(symbol='SPY', ns=7, count=1)
        """
        return base64.urlsafe_b64encode(f"{self.symbol}|{self.ns}|{self.count}".encode()).decode()

    @classmethod
    def of(cls, token: str | None) -> Place | None:
        """The place of a token.

        Raises:
            Refused: The token is none of ours.
        """
        if token is None:
            return None
        try:
            symbol, ns, count = base64.urlsafe_b64decode(token.encode()).decode().split("|")
            return cls(symbol, int(ns), int(count))
        except (binascii.Error, ValueError) as wrong:
            raise Refused(400, "invalid page_token") from wrong
