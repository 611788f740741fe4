"""The live page in a real Chromium: numbers, changes as they happen, keys, strangers' text.

``PICTURES_TO=docs/images pytest -m browser`` saves what it looks like.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from segmentation_assets.core.settings import ServeSettings, StreamSettings
from segmentation_assets.io.live_store.memory import MemoryStore
from segmentation_assets.serving.app import create_app
from segmentation_assets.serving.keys import ApiKeys, new_key
from segmentation_assets_tests.batch_side import batch_side
from segmentation_assets_tests.serving.live_shop import Shop, listening, search

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: install your system's chromium package"),
]

HOSTILE = "<img src=x onerror=document.title='run'>" + "looong" * 12


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def brightness(color: str) -> float:
    return sum(float(part) for part in re.findall(r"[\d.]+", color)[:3]) / 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_live_page_shows_changes_as_they_happen(
    browser: "playwright.Browser",
    memory_shop: Shop,
    width: int,
    scheme: str,
) -> None:
    shop = memory_shop
    shop.say("worker-1", p50_ms=4.2, p95_ms=11.0, p99_ms=1_812.0, lag={"user_events/0": 3, "user_events/1": 4})
    shop.say("worker-2", model="the-one-before")
    app = create_app(shop.store, ServeSettings(), StreamSettings(), ApiKeys())
    with listening(app) as url:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        asked: list[str] = []
        said: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"{url}/live")
        page.get_by_text("Live", exact=True).wait_for()
        assert page.locator("#rate").inner_text() == "25"
        assert page.locator("#lag").inner_text() == "7"
        assert page.locator("#p99").inner_text() == "1.8 s"
        assert page.locator("#mix tbody tr").count() == len(shop.store.sizes())
        assert "not yet the new one" in page.locator("#workers tbody tr").nth(1).inner_text()

        shop.do([search(f"{HOSTILE}-{number}", "gaming laptop") for number in range(3)])
        page.locator("#changes tbody tr", has_text=f"{HOSTILE}-2").wait_for()
        assert page.locator("#changes tbody tr").count() == 20
        assert page.locator("img").count() == 0
        assert page.title() == "Live segments"
        assert said == []
        assert all(one.startswith((url, "data:")) for one in asked)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        beyond = page.evaluate(
            """[...document.querySelectorAll('section *')]
                .filter(part => part.getBoundingClientRect().width > 2)  // what only screen readers see is 1 wide
                .filter(part => part.getBoundingClientRect().right >
                    part.closest('section').getBoundingClientRect().right - 4)
                .map(part => part.outerHTML.slice(0, 200))"""
        )
        assert beyond == []
        ground, ink = page.evaluate(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
        )
        assert (brightness(ground) > 128 > brightness(ink)) == (scheme == "light")
        page.close()


def test_every_segment_has_a_row_with_its_users_the_largest_first(browser: "playwright.Browser") -> None:
    """With the default clusters, whose segments have names; the picture of the documentation is taken here."""
    shop = Shop(MemoryStore(), batch_side(1_500, 8))
    shop.say("worker-1", p50_ms=4.2, p95_ms=11.0, p99_ms=24.0, lag={"user_events/0": 3})
    app = create_app(shop.store, ServeSettings(), StreamSettings(), ApiKeys())
    with listening(app) as url:
        page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
        page.goto(f"{url}/live")
        page.get_by_text("Live", exact=True).wait_for()
        rows = page.locator("#mix tbody tr")
        sizes = shop.store.sizes()
        assert rows.count() == len(sizes) > 2
        assert all(str(size) in rows.nth(place).inner_text() for place, size in enumerate(sorted(sizes.values())[::-1]))
        folder = os.environ.get("PICTURES_TO")
        if folder:
            page.screenshot(path=Path(folder) / "live-page.png", full_page=True)
        page.close()


def test_where_keys_are_needed_the_page_asks_for_one_and_keeps_it_for_the_session(
    browser: "playwright.Browser",
    memory_shop: Shop,
    key_file: Path,
) -> None:
    made = new_key("page", ["read", "stream"])
    key_file.write_text(made.entry)
    app = create_app(memory_shop.store, ServeSettings(), StreamSettings(), ApiKeys.load(key_file))
    with listening(app) as url:
        page = browser.new_page()
        page.goto(f"{url}/live")
        page.get_by_text("A key is needed.").wait_for()
        for key, answer in (("wrong", "This key is not known."), (made.key, "Live")):
            page.locator("#key").fill(key)
            page.get_by_role("button").click()
            page.get_by_text(answer, exact=True).wait_for()
        page.reload()
        page.get_by_text("Live", exact=True).wait_for()
        assert not page.locator("#login").is_visible()
        assert made.key not in page.url
        page.close()
