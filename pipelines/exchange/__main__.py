"""``python -m pipelines.exchange CONFIG.json``: run one exchange until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

import orjson

from pipelines.errors import RaytapeError
from pipelines.exchange.config import ExchangeConfig
from pipelines.exchange.server import serve

_LOG = logging.getLogger(__name__)


def main(arguments: list[str]) -> int:
    """Run the exchange of a configuration file; answers the process's exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if len(arguments) != 1:
        _LOG.error("usage: python -m pipelines.exchange CONFIG.json")
        return 2
    try:
        config = ExchangeConfig.from_dict(orjson.loads(Path(arguments[0]).read_bytes()))
        asyncio.run(serve(config))
    except (RaytapeError, OSError, orjson.JSONDecodeError) as error:
        _LOG.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
