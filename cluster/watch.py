"""The live stream in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import orjson
from rich.console import Console
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from pipelines.errors import PartFailed

COLOURS = {"BUY": "green", "SELL": "red", "HOLD": "dim"}


def follow(url: str, *, channels: Sequence[str], symbols: Sequence[str], console: Console) -> None:
    """Print updates of the stream until interrupted.

    Raises:
        PartFailed: The gateway does not answer.
    """
    address = url.replace("http", "ws", 1) + "/v1/stream"
    try:
        with connect(address) as socket:
            socket.send(
                orjson.dumps(
                    {"action": "subscribe", "channels": list(channels), "symbols": list(symbols)}
                ).decode()
            )
            for frame in socket:
                document = orjson.loads(frame)
                for update in document if isinstance(document, list) else [document]:
                    _print(console, update)
    except (OSError, WebSocketException) as error:
        raise PartFailed(f"gateway: {address} does not answer ({error}); is it up?") from error


def _print(console: Console, update: dict[str, object]) -> None:
    data = update.get("data")
    if update.get("channel") == "signals" and isinstance(data, dict) and "action" in data:
        colour = COLOURS.get(str(data["action"]), "white")
        console.print(
            f"{data.get('event_time')}  {data.get('symbol', ''):<6}"
            f"[{colour}]{data['action']:<5}[/]{float(data.get('confidence') or 0):.2f}"
            f"  {data.get('reason') or ''}"
        )
    else:
        console.print_json(orjson.dumps(update).decode(), indent=None)
