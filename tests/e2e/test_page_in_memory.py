"""The page on the real gateway with a market in memory: what streaming adds, drawn and listed."""

from __future__ import annotations

import asyncio
import re
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from cluster.parts import DASHBOARD
from pipelines.events import MINUTE_NS, format_time_ns, item
from pipelines.features.indicators import NAMES
from serve.api import gateway, signals, stream
from serve.updates import newest
from tests.e2e.test_page import ARGS, MOMENT_MS
from tests.serve.conftest import OPEN_NS, Bench, FakeFeed, make_bench, minute, served, trade
from tests.serve.conftest import record as record_of

pytestmark = [pytest.mark.heavy, pytest.mark.e2e, pytest.mark.timeout(120)]

CLOSED = 90
"""Minutes that are over."""


class MemoryFeed(FakeFeed):
    """Answers as the feed does, of a memory that the test fills from another thread."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.memory)
        self.lock = threading.Lock()

    async def changes(self, after_seq: int, timeout_s: float, channels: Any) -> dict[str, Any]:
        log = self.memory.log
        for _ in range(int(timeout_s / 0.02)):
            with self.lock:
                reset = after_seq < log.floor or after_seq > log.seq
                found = newest(log.all()) if reset else log.after(after_seq)
                if found or reset:
                    return {
                        "seq": log.seq, "reset": reset, "updates": [tuple(u) for u in found],
                        "market": self.memory.market.to_dict(),
                    }  # fmt: skip
            await asyncio.sleep(0.02)
        return {
            "seq": after_seq, "reset": False, "updates": [],
            "market": self.memory.market.to_dict(),
        }  # fmt: skip


class PageLake:
    """A lake with one row of everything that is listed."""

    def bars(self, *_: Any, **__: Any) -> Sequence[dict[str, Any]]:
        return []

    rolled = indicators = stats = fills = alerts = bars

    def anomalies(self, **_: Any) -> Sequence[dict[str, Any]]:
        return [{"symbol": "SPY", "event_time": minute(40), "known_at": minute(41), **ODD}]

    def gaps(self, **_: Any) -> Sequence[dict[str, Any]]:
        began = OPEN_NS + 20 * MINUTE_NS
        cut = {"from_ns": began, "to_ns": began + MINUTE_NS, "reason": "cut", "backfilled": True}
        return [{"symbol": "SPY", **cut}]


ODD = {
    "kind": "volume_spike", "severity": "critical", "score": 4.5, "value": 13.5, "threshold": 3.0,
    "reason": "volume 13.5 times the average", "detector": "rule",
}  # fmt: skip
STAGES = {
    "market": {"time": minute(CLOSED), "rate": 10, "simulated": True, "open": True},
    "ledger": {
        "received": 10, "stored": 8, "quarantined": 0, "in_flight": 2, "imbalance": 0, "lost": 0,
        "holes": 0, "gaps": 1, "duplicates": 0, "as_of": None, "stages": {},
        "balance": [{
            "stage": "producer", "received": 10, "stored": 9, "duplicates": 0, "quarantined": 0,
            "in_flight": 1, "imbalance": 0, "holes": 0, "gaps": 1,
        }],
    },
    "producer": {"state": "streaming"}, "streaming": {"state": "running"},
    "feed": {"streams": {"market-data": "streaming"}},
}  # fmt: skip


@dataclass
class Market:
    """What the page is served from, and how the test moves it."""

    bench: Bench
    feed: MemoryFeed
    url: str = ""
    sent: int = field(default=0)

    def tell(self, kind: str, data: dict[str, Any], *, at: int = CLOSED - 1) -> None:
        """An item of ``market-signals`` about SPY."""
        with self.feed.lock:
            told = item(kind, symbol="SPY", event_time=minute(at), data=data)  # type: ignore[arg-type]
            self.bench.memory.apply_items([told])

    def trade(self, price: float, *, s: float) -> None:
        """A trade of SPY so many seconds after the open."""
        with self.feed.lock:
            self.sent += 1
            self.bench.memory.apply_record(
                record_of(trade(price=price, s=s), bseq=self.sent, s=s + 1)
            )
            self.bench.wall_ns += 10**9
            self.bench.memory.flush(wall=self.bench.wall_ns)

    def system(self, **changes: Any) -> None:
        """The state of the platform."""
        with self.feed.lock:
            self.bench.memory.set_system(STAGES | changes, event_time=minute(CLOSED))


def one_app(market: Market) -> Any:
    """The applications of the platform behind one port, as its ingress has them."""
    bench, mirror = market.bench, market.bench.mirror
    parts = gateway.GatewayParts(
        mirror=mirror, symbols=("SPY", "AAPL"), lake=PageLake(), dashboard_dir=DASHBOARD
    )
    asked = signals.SignalParts(mirror, bench.policy, bench.service)
    apps = {
        "/v1/stream": stream.build(lambda: mirror),
        "/v1/signals": signals.build(lambda: asked),
        "/": gateway.build(lambda: parts),
    }

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            path = next(prefix for prefix in apps if scope["path"].startswith(prefix))
            await apps[path](scope, receive, send)
            return
        async with AsyncExitStack() as stack:
            await receive()
            for one in apps.values():
                await stack.enter_async_context(one.router.lifespan_context(one))
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    return app


@contextmanager
def market_of(bench: Bench) -> Iterator[Market]:
    market = Market(bench, MemoryFeed(bench))
    bench.mirror.feed = market.feed
    for i in range(CLOSED):
        price = 100 + i % 7
        bar = {
            "open": price, "high": price + 1, "low": price - 1, "close": price, "volume": 50.0,
            "trade_count": 5, "vwap": price, "source": "vendor",
        }  # fmt: skip
        market.tell("bar", bar, at=i)
    market.tell(
        "features",
        {
            "values": {"rsi_14": 55.0}, "warm": True, "gap": False, "spread_assumed": False,
            "fingerprint": "f", "indicators": dict.fromkeys(NAMES, 123.45),
        },
    )  # fmt: skip
    market.trade(103.0, s=CLOSED * 60 + 1)
    market.system()
    with served(one_app(market)) as client:
        market.url = str(client.base_url)
        yield market


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("no Chromium here; `cluster/setup.sh browser` installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGS)
        yield browser
        browser.close()


@pytest.fixture
def market() -> Iterator[Market]:
    with market_of(make_bench()) as market:
        yield market


@pytest.fixture
def page(chromium: Any, market: Market) -> Iterator[Page]:
    wrong: list[str] = []
    page = chromium.new_page(viewport={"width": 1440, "height": 900})
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(market.url)
    expect(page.get_by_test_id("connection-state")).to_have_text("Connected", timeout=MOMENT_MS)
    expect(page.get_by_test_id("legend")).to_be_visible(timeout=MOMENT_MS)
    yield page
    page.close()
    assert wrong == []


def test_chart_shows_the_platforms_indicators_and_moves_with_the_trades(
    market: Market, page: Page
) -> None:
    legend = page.get_by_test_id("legend")
    expect(legend).to_contain_text("forming")
    market.trade(107.5, s=CLOSED * 60 + 2)
    expect(legend).to_contain_text(re.compile(r"C 107\.50"), timeout=MOMENT_MS)
    page.get_by_role("application").press("ArrowLeft")
    page.get_by_role("application").press("ArrowLeft")
    expect(legend).to_contain_text(re.compile(r"VWAP\s*123\.45\s*SMA 20\s*123\.45"))

    page.get_by_role("button", name="1d", exact=True).click()
    expect(legend).to_contain_text(re.compile(r"Jul 5\s*O 100\.00.*H 107\.50", re.DOTALL))


def test_anomaly_takes_the_chart_to_its_bar_and_a_live_one_comes_on_top(
    market: Market, page: Page
) -> None:
    rows = page.get_by_test_id("anomalies").get_by_role("button")
    rows.first.click()
    legend = page.get_by_test_id("legend")
    expect(legend).to_contain_text("volume 13.5 times the average")
    expect(legend).to_contain_text("10:10")
    market.tell("anomaly", ODD | {"kind": "outlier", "reason": "strange together"})
    expect(rows.first).to_contain_text("strange together", timeout=MOMENT_MS)
    assert rows.count() == 2


def test_what_streaming_counts_is_shown_as_it_comes(market: Market, page: Page) -> None:
    market.tell(
        "stats",
        {
            "session": minute(0), "count": 1234, "min": 99.0, "max": 108.0, "mean": 103.0,
            "variance": 4.0, "std": 2.0, "sliding": {},
            "buckets": {"base": 100.0, "width_bps": 10.0, "counts": {"0": 3, "9": 1}},
            "own_bar": {"agrees": True},
        },
    )  # fmt: skip
    market.tell("provisional", {"provisional": True, "values": {"rsi_14": 77.0}}, at=CLOSED)
    rsi = page.get_by_test_id("features").get_by_role("row", name="RSI")
    expect(rsi).to_contain_text("55.00")
    expect(rsi).to_contain_text("77.00", timeout=MOMENT_MS)
    page.get_by_role("tab", name="Statistics").click()
    expect(page.get_by_test_id("stats")).to_contain_text("1,234", timeout=MOMENT_MS)

    page.get_by_role("tab", name="Ledger").click()
    expect(page.get_by_test_id("ledger-balance")).to_have_attribute("data-balanced", "true")
    expect(page.get_by_role("row", name="Archive")).to_contain_text("Does not answer")
    page.get_by_role("tab", name="Health").click()
    market.system(producer={"state": "backing_off", "error": "the feed refuses"})
    expect(page.get_by_test_id("health")).to_contain_text("the feed refuses", timeout=MOMENT_MS)


def test_market_whose_time_goes_back_begins_anew(market: Market, page: Page) -> None:
    earlier = {"time": format_time_ns(OPEN_NS), "rate": 10, "simulated": True, "open": True}
    expect(page.get_by_test_id("last-price")).to_have_text("103.00", timeout=MOMENT_MS)
    market.tell("signal", {"symbol": "SPY", "action": "BUY", "event_time": minute(0)}, at=0)
    market.system(market=earlier)
    expect(page.locator("header time")).to_contain_text("09:30", timeout=MOMENT_MS)
    market.trade(111.25, s=CLOSED * 60 + 3)
    expect(page.get_by_test_id("last-price")).to_have_text("111.25", timeout=MOMENT_MS)
