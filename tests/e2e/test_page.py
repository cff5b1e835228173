"""A person opens the page: the candle moves, a signal marker appears, nothing is lost."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import ConsoleMessage, Page, expect, sync_playwright

from tests.running import Running

pytestmark = [pytest.mark.heavy, pytest.mark.e2e, pytest.mark.timeout(600)]

ARGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-component-update", "--disable-sync", "--disable-quic",
]  # fmt: skip
MOMENT_MS = 20_000
NUMBER = re.compile(r"\d")
expect.set_options(timeout=MOMENT_MS)  # its own 5 s are too few for two busy cores


@pytest.fixture
def console() -> list[str]:
    return []


@pytest.fixture
def page(running: Running, console: list[str]) -> Iterator[Page]:
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("no Chromium here; `cluster/setup.sh browser` installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})

        def note(message: ConsoleMessage) -> None:
            if message.type in {"error", "warning"}:
                console.append(message.text)

        page.on("console", note)
        page.on("pageerror", lambda error: console.append(str(error)))
        page.goto(running.settings.gateway_url + "/")
        yield page
        browser.close()


def number(page: Page, test_id: str) -> float:
    text = page.get_by_test_id(test_id).inner_text()
    return float("".join(c for c in text if c.isdigit() or c in ".-") or "nan")


def test_page_shows_a_live_market_without_console_errors(page: Page, console: list[str]) -> None:
    expect(page.get_by_test_id("connection-state")).to_have_attribute("data-state", "live")
    expect(page.get_by_test_id("market-mode")).to_contain_text("20")

    price = page.get_by_test_id("last-price")
    before = price.inner_text()
    expect(price).not_to_have_text(before)

    expect(page.get_by_test_id("signal-action")).to_contain_text(re.compile("HOLD|BUY|SELL"))
    page.wait_for_function(
        "() => Number(document.querySelector("
        "'[data-testid=signal-markers-count]')?.textContent) > 0",
        timeout=90_000,
    )
    verdict = page.get_by_test_id("ledger-verdict")
    expect(verdict).to_have_attribute("data-verdict", "accounted", timeout=60_000)
    assert number(page, "ledger-stored") > 0
    assert number(page, "ledger-lost") == 0
    assert console == []


def test_page_chart_moves_between_closes_and_keeps_what_was_chosen(
    page: Page, console: list[str]
) -> None:
    legend = page.get_by_test_id("legend")
    expect(legend).to_contain_text("forming")
    before = legend.inner_text()
    expect(legend).not_to_have_text(before)

    page.get_by_role("button", name="Indicators").click()
    page.get_by_label("MACD").check()
    page.get_by_label("Bollinger").check()
    page.keyboard.press("Escape")
    chart = page.get_by_test_id("chart")
    for wanted in (r"Bollinger 20, 2\s*\d", r"RSI 14\s*\d", r"MACD 12, 26, 9\s*Hist .?\d"):
        expect(chart).to_contain_text(re.compile(wanted))
    page.get_by_role("button", name="5m", exact=True).click()
    expect(legend).to_contain_text(re.compile(r"\d\d:\d[05](?!\d)"))

    page.reload()
    expect(chart).to_contain_text("MACD 12, 26, 9")
    five = page.get_by_role("button", name="5m", exact=True)
    expect(five).to_have_attribute("aria-pressed", "true")
    page.get_by_role("application").press("ArrowLeft")
    expect(chart.locator("[aria-live]")).to_contain_text("close")
    assert console == []


def test_page_shows_what_the_stages_count_and_what_streaming_adds(
    page: Page, console: list[str]
) -> None:
    page.get_by_role("tab", name="Ledger").click()
    balance = page.get_by_test_id("ledger-balance")
    expect(balance).to_have_attribute("data-balanced", "true")
    expect(page.get_by_test_id("ledger-stages")).not_to_contain_text("Does not answer")

    page.get_by_role("tab", name="Health").click()
    health = page.get_by_test_id("health")
    expect(health.get_by_role("region", name="Parts")).to_contain_text("streaming")

    page.get_by_role("tab", name="Anomalies").click()
    expect(page.get_by_role("tabpanel", name="Anomalies")).to_contain_text(
        re.compile("Nothing unusual yet|Reason")
    )

    forming = page.get_by_test_id("features").get_by_role("row", name="RSI").get_by_role("cell")
    expect(forming.last).to_have_text(NUMBER)
    page.get_by_role("tab", name="Statistics").click()
    expect(page.get_by_test_id("stats")).to_contain_text(re.compile(r"Trades\s*\d"))
    assert console == []


def test_page_on_a_phone_has_no_horizontal_scroll(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    expect(page.get_by_test_id("last-price")).to_be_visible()
    for tab in ("Anomalies", "Fills", "Ledger", "Health", "Statistics"):
        page.get_by_role("tab", name=tab).click()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), tab
