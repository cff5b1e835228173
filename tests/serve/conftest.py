"""A market in memory: records, items, a model that can be asked, a mirror filled by hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn

from cluster.processes import free_port
from pipelines.errors import ModelError
from pipelines.events import MINUTE_NS, Record, bucket_of, format_time_ns, item
from pipelines.features.spec import FEATURE_SPEC
from serve.decide import SignalService
from serve.memory import FeedMemory
from serve.mirror import Mirror
from serve.policy import Model, Policy

OPEN_NS = 1_720_186_200_000_000_000  # 2024-07-05T13:30:00Z


def minute(i: int) -> str:
    return format_time_ns(OPEN_NS + i * MINUTE_NS)


def at(seconds: float) -> str:
    return format_time_ns(OPEN_NS + int(seconds * 1e9))


def trade(symbol: str = "SPY", *, s: float = 1, price: float = 100.0, size: int = 10) -> dict:
    return {"T": "t", "S": symbol, "p": price, "s": size, "x": "V", "t": at(s), "r": 5_000_000_000}


def quote(symbol: str = "SPY", *, s: float = 1, bid: float = 99.0, ask: float = 101.0) -> dict:
    return {"T": "q", "S": symbol, "bp": bid, "ap": ask, "bs": 1, "as": 2, "t": at(s), "r": 1}


def bar(symbol: str = "SPY", *, i: int = 0, close: float = 100.0) -> dict:
    return {
        "T": "b", "S": symbol, "o": 100.0, "h": max(101.0, close), "l": min(99.0, close),
        "c": close, "v": 50, "n": 5, "vw": 100.0, "t": minute(i), "r": 1,
    }  # fmt: skip


def record(
    *messages: Any, bseq: int = 1, s: float = 60, wall: int = 10**12, epoch: str = "e"
) -> Record:
    symbol = messages[0].get("S", "SPY") if messages else "SPY"
    return Record(
        epoch=epoch, bucket=bucket_of(symbol), bseq=bseq, sent_at_ns=wall,
        market_ns=OPEN_NS + int(s * 1e9), messages=list(messages),
    )  # fmt: skip


FEATURES = dict.fromkeys(FEATURE_SPEC.names, 0.0)


def features_item(symbol: str = "SPY", *, i: int = 0, gap: bool = False, **values: Any) -> dict:
    data = {
        "values": {**FEATURES, **values}, "fingerprint": FEATURE_SPEC.fingerprint, "warm": True,
        "spread_assumed": False, "gap": gap,
    }  # fmt: skip
    return item("features", symbol=symbol, event_time=minute(i), data=data)


@dataclass
class FakeRunner:
    """Logits by the first feature: buys when it is positive, sells when negative."""

    calls: list[np.ndarray] = field(default_factory=list)
    broken: bool = False

    def run(self, outputs: Any, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        x = feed["observation"]
        self.calls.append(x)
        logits = np.stack([np.full(len(x), 0.1), x[:, 0], -x[:, 0]], axis=1)
        if self.broken:
            logits[:] = np.nan
        return [logits.astype(np.float32), x[:, 11].reshape(-1, 1)]


@dataclass
class FakeLoader:
    """A registry in memory."""

    models: dict[tuple[str, int], Model] = field(default_factory=dict)
    chosen: tuple[str, int] | None = None
    failing: bool = False

    def promoted(self) -> tuple[str, int] | None:
        if self.failing:
            raise OSError("no registry")
        return self.chosen

    def load(self, ref: tuple[str, int]) -> Model:
        if ref not in self.models:
            raise ModelError(f"no {ref}")
        return self.models[ref]

    def rules(self) -> Model:
        return model("rules-1")


def model(
    name: str = "ppo", version: int = 1, *, fingerprint: str = FEATURE_SPEC.fingerprint,
    runner: Any = None, outputs: tuple[str, ...] = ("logits", "value"),
) -> Model:  # fmt: skip
    return Model(
        id=name, version=version, fingerprint=fingerprint, outputs=outputs, temperature=1.0,
        runner=runner or FakeRunner(),
    )  # fmt: skip


class FakeFeed:
    """A feed whose memory the test fills; it is asked by hand."""

    def __init__(self, memory: FeedMemory) -> None:
        self.memory = memory

    async def changes(self, after_seq: int, timeout_s: float, channels: Any) -> dict[str, Any]:
        raise NotImplementedError

    async def bars(self, symbol: str) -> list[dict[str, Any]]:
        known = self.memory.symbols.get(symbol)
        return self.memory.bars_of(known) if known else []

    async def rows(self, kind: str, symbol: str) -> list[dict[str, Any]]:
        known = self.memory.symbols.get(symbol)
        return list(getattr(known, kind)) if known else []


@dataclass
class Bench:
    """Memory, mirror and service, with a wall clock that the test turns."""

    memory: FeedMemory
    mirror: Mirror
    loader: FakeLoader
    policy: Policy
    service: SignalService
    wall_ns: int = 10**12
    sent: int = 0

    def sync(self) -> None:
        self.memory.flush(wall=self.wall_ns)
        updates = self.memory.log.after(self.sent)
        self.mirror.apply(
            {
                "seq": self.memory.log.seq, "reset": self.sent == 0,
                "updates": [tuple(u) for u in updates], "market": self.memory.market.to_dict(),
            }
        )  # fmt: skip
        self.sent = self.memory.log.seq


@pytest.fixture
def bench() -> Bench:
    return make_bench()


def make_bench(*, first_seq: int = 1, chosen: bool = True) -> Bench:
    memory = FeedMemory(first_seq=first_seq, rate=10, conflate_s=0.1)
    mirror = Mirror(FakeFeed(memory), symbols=("SPY", "AAPL"))
    loader = FakeLoader()
    if chosen:
        loader.models[("ppo", 1)] = model()
        loader.chosen = ("ppo", 1)
    policy = Policy(loader, fingerprint=FEATURE_SPEC.fingerprint)
    policy.refresh()
    holder: list[Bench] = []
    clock: Callable[[], int] = lambda: holder[0].wall_ns  # noqa: E731
    service = SignalService(mirror, policy, wall=clock)
    holder.append(Bench(memory, mirror, loader, policy, service))
    return holder[0]


@contextmanager
def served(app: Any) -> Iterator[httpx.Client]:
    """An application on a port of its own, and a client of it."""
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(
            app, host="127.0.0.1", port=port, log_level="critical", ws="websockets-sansio"
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.005)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(10)
