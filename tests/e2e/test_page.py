"""A person opens the page: the candle moves, a signal marker appears, nothing is lost."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import ConsoleMessage, Page, expect, sync_playwright

from tests.running import FAST, Running, platform

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ARGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-component-update", "--disable-sync", "--disable-quic",
]  # fmt: skip


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with platform(tmp_path_factory.mktemp("page"), speed=20, **FAST) as up:
        yield up


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
    expect(page.get_by_test_id("connection-state")).to_have_attribute(
        "data-state", "live", timeout=20_000
    )
    expect(page.get_by_test_id("market-mode")).to_contain_text("20")

    price = page.get_by_test_id("last-price")
    before = price.inner_text()
    expect(price).not_to_have_text(before, timeout=20_000)

    expect(page.get_by_test_id("signal-action")).to_contain_text(
        re.compile("HOLD|BUY|SELL"), timeout=20_000
    )
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


def test_page_on_a_phone_has_no_horizontal_scroll(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    expect(page.get_by_test_id("last-price")).to_be_visible(timeout=20_000)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
