"""What the letters of the tape mean, as the vendor's ``meta`` endpoints list them."""

from __future__ import annotations

EXCHANGES = {
    "A": "NYSE American (AMEX)",
    "B": "NASDAQ OMX BX",
    "C": "National Stock Exchange",
    "D": "FINRA ADF",
    "H": "MIAX",
    "I": "International Securities Exchange",
    "J": "Cboe EDGA",
    "K": "Cboe EDGX",
    "L": "Long Term Stock Exchange",
    "M": "Chicago Stock Exchange",
    "N": "New York Stock Exchange",
    "P": "NYSE Arca",
    "Q": "NASDAQ OMX",
    "S": "NASDAQ Small Cap",
    "T": "NASDAQ Int",
    "U": "Members Exchange",
    "V": "IEX",
    "W": "CBOE",
    "X": "NASDAQ OMX PSX",
    "Y": "Cboe BYX",
    "Z": "Cboe BZX",
}

_TRADE = {
    " ": "Regular Sale",
    "4": "Derivatively Priced",
    "B": "Average Price Trade",
    "C": "Cash Sale",
    "F": "Intermarket Sweep",
    "H": "Price Variation Trade",
    "I": "Odd Lot Trade",
    "L": "Sold Last (Late Reporting)",
    "M": "Market Center Official Close",
    "N": "Next Day Trade",
    "P": "Prior Reference Price",
    "Q": "Market Center Official Open",
    "R": "Seller",
    "T": "Form T",
    "U": "Extended Hours (Sold Out of Sequence)",
    "V": "Contingent Trade",
    "X": "Cross Trade",
    "Z": "Sold (Out of Sequence)",
}
_TRADE_AB = {"E": "Automatic Execution", "K": "Rule 127", "O": "Market Center Opening Trade",
             "5": "Market Center Reopening Trade", "6": "Market Center Closing Trade"}  # fmt: skip
_TRADE_C = {"@": "Regular Sale", "A": "Acquisition", "D": "Distribution", "G": "Bunched Sold Trade",
            "K": "Rule 155 Trade", "O": "Opening Prints", "S": "Split Trade",
            "W": "Average Price Trade", "Y": "Yellow Flag Regular Trade", "1": "Stopped Stock",
            "5": "Re-opening Prints", "6": "Closing Prints",
            "7": "Qualified Contingent Trade"}  # fmt: skip
_QUOTE = {"A": "Slow Quote Offer Side", "B": "Slow Quote Bid Side", "C": "Closing",
          "D": "News Dissemination", "H": "Slow Quote Bid And Offer Side", "L": "Closed Quote",
          "N": "Non Firm Quote", "O": "Opening Quote",
          "R": "Regular Market Maker Open"}  # fmt: skip


def conditions(kind: str, tape: str) -> dict[str, str]:
    """Meaning of each condition code.

    Args:
        kind: ``trade`` or ``quote``.
        tape: ``A``, ``B`` or ``C``.

    >>> conditions("trade", "C")["I"], conditions("quote", "A")["R"]
    ('Odd Lot Trade', 'Regular Market Maker Open')
    """
    if kind == "quote":
        return dict(_QUOTE)
    return _TRADE | (_TRADE_C if tape == "C" else _TRADE_AB)
