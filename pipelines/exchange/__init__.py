"""The stand-in for Alpaca: a synthetic or replayed market behind the real protocol."""
