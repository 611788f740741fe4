"""The report in a real Chromium, opened as a file: on a desk and on a telephone, light and dark, and on paper.

``PICTURES_TO=docs/images pytest -m browser`` saves what it looks like.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_data import make_report_data

from segmentation_assets.core.report.page import render

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: install your system's chromium package"),
]

HOSTILE = "<img src=x onerror=document.title='run'> " + "looooong" * 30


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(make_report_data(extra=HOSTILE)), "utf-8")
    return path


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
def test_the_report_can_be_read_as_a_file(browser: "playwright.Browser", report: Path, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(report.as_uri())
    for summary in page.locator("summary").all():
        summary.click()

    assert asked == [report.as_uri()]
    assert said == []
    assert page.title() == "User segments"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    beyond = page.evaluate(
        """[...document.querySelectorAll('main *')]
            .filter(part => !part.closest('thead') && part.getBoundingClientRect().right > innerWidth + 0.5)
            .map(part => part.outerHTML.slice(0, 200))"""
    )
    assert beyond == []
    sizes = page.evaluate("[...document.querySelectorAll('svg')].map(one => one.getBoundingClientRect().width)")
    assert len(sizes) >= 12
    assert all(250 < size < width for size in sizes)
    ground, ink, drawn = page.evaluate(
        """[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,
            getComputedStyle(document.querySelector('svg text')).fill]"""
    )
    assert ink == drawn
    assert (brightness(ground) > 128 > brightness(ink)) == (scheme == "light")
    folder = os.environ.get("PICTURES_TO")
    if folder:
        page.screenshot(path=Path(folder) / f"report-{width}-{scheme}.png", full_page=True)
    page.close()


def test_letters_in_the_pictures_can_be_read_on_a_telephone(browser: "playwright.Browser", report: Path) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.goto(report.as_uri())
    smallest = page.evaluate(
        """Math.min(...[...document.querySelectorAll('svg text')].map(text => {
            const drawn = text.getScreenCTM()  // turned by a quarter, too
            return parseFloat(getComputedStyle(text).fontSize) * Math.hypot(drawn.b, drawn.d)
        }))"""
    )
    assert smallest > 7.5
    page.close()


def test_on_paper_it_is_light_and_without_links(browser: "playwright.Browser", report: Path) -> None:
    page = browser.new_page(viewport={"width": 700, "height": 900}, color_scheme="dark")
    page.emulate_media(media="print")
    page.goto(report.as_uri())
    assert brightness(page.evaluate("getComputedStyle(document.body).backgroundColor")) > 200
    assert not page.locator("nav").is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('figure')).breakInside") == "avoid"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.close()
