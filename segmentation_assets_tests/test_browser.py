"""The Dagster UI in a real Chromium: what a data engineer sees and clicks.

``PICTURES_TO=docs/images pytest -m browser`` saves the pictures that the documentation shows.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = [
    "--no-sandbox",  # containers run as root, where the sandbox refuses to start
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
MINUTE = 60_000

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: install your system's chromium package"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def ui(folder: Path) -> Iterator[str]:
    """`segments dev` on an empty data folder; ended by SIGINT, as by Ctrl-C."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (folder / "dev.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "segmentation_assets", "dev", "--data-dir", str(folder / "data"), "--port", str(port)],
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{url}/server_info", process, folder / "dev.log")
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            log.close()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"the UI did not come up:\n{log.read_text()}")


@pytest.fixture(scope="module")
def page(ui: str) -> Iterator["playwright.Page"]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 900})
        page.set_default_timeout(MINUTE)
        yield page
        browser.close()


def _picture(page: "playwright.Page", name: str) -> None:
    folder = os.environ.get("PICTURES_TO")
    if folder:
        page.wait_for_timeout(1_500)  # let what moves come to rest
        page.screenshot(path=Path(folder) / f"{name}.png")


def test_materialize_all_and_see_the_segments(ui: str, page: "playwright.Page") -> None:
    """One click on an empty machine makes sessions and segments; the UI shows them as tables and pictures."""
    page.goto(f"{ui}/asset-groups/")
    for group in ("segmentation", "users"):
        page.get_by_text(group, exact=True).first.wait_for()
    # Leaving the page before the server has answered would take the click back. Two queries whose names begin with
    # Launch come before the mutation that launches.
    with page.expect_response(lambda answer: '"mutation Launch' in (answer.request.post_data or "")) as launched:
        page.get_by_role("button", name="Materialize all").click()
    assert launched.value.ok
    page.goto(f"{ui}/runs")
    page.get_by_text("Success", exact=True).or_(page.get_by_text("Failure", exact=True)).first.wait_for(
        timeout=3 * MINUTE
    )
    assert page.get_by_text("Success", exact=True).count() == 1

    for group, last in (("segmentation", "es_user_segments"), ("users", "es_user_profiles")):
        page.goto(f"{ui}/locations/segmentation_assets/asset-groups/{group}/lineage")
        page.get_by_text(last).first.wait_for()
        if group == "segmentation":
            _picture(page, "lineage")

    page.goto(f"{ui}/assets/labeled_segments")
    for segment in ("tech_enthusiast", "budget_buyer", "fashion_oriented"):
        page.get_by_text(segment, exact=True).first.wait_for()
    _picture(page, "segments")

    shown = page.get_by_text("[Show Markdown]")
    assert shown.count() >= 3  # sizes, map, terms
    shown.nth(1).click()
    image = page.get_by_role("img", name="map of the queries")
    image.wait_for()
    assert image.evaluate("picture => picture.complete && picture.naturalWidth") > 300
    _picture(page, "query-map")


def test_personas_are_shown_in_the_ui_and_in_the_report(ui: str, folder: Path, page: "playwright.Page") -> None:
    """The same click made a profile of every user; the personas have their pictures, and the report is a page."""
    page.goto(f"{ui}/assets/personas")
    page.get_by_text("named by", exact=True).first.wait_for()
    shown = page.get_by_text("[Show Markdown]")
    assert shown.count() >= 3  # sizes, segments, features
    shown.nth(2).click()
    image = page.get_by_role("img", name="features by cluster")
    image.wait_for()
    assert image.evaluate("picture => picture.complete && picture.naturalWidth") > 300
    _picture(page, "personas")

    page.goto((folder / "data" / "reports" / "report.html").as_uri())
    section = page.locator("section[aria-labelledby=personas]")
    cards = section.locator("article")
    cards.first.wait_for()
    assert cards.count() == 5
    if os.environ.get("PICTURES_TO"):
        _part(page, cards, "report")
        page.set_viewport_size({"width": 390, "height": 844})
        page.emulate_media(color_scheme="dark")
        _picture(page, "report-phone")
        page.set_viewport_size({"width": 1500, "height": 900})
        page.emulate_media(color_scheme="light")


def _part(page: "playwright.Page", parts: "playwright.Locator", name: str) -> None:
    """A picture of what several parts of the page cover."""
    boxes = [box for part in parts.all() if (box := part.bounding_box())]
    left, top = (min(box[side] for box in boxes) - 12 for side in ("x", "y"))
    right = max(box["x"] + box["width"] for box in boxes) + 12
    bottom = max(box["y"] + box["height"] for box in boxes) + 12
    scrolled = page.evaluate("scrollY")
    clip = {"x": left, "y": top + scrolled, "width": right - left, "height": bottom - top}
    page.screenshot(path=Path(os.environ["PICTURES_TO"]) / f"{name}.png", clip=clip, full_page=True)


def test_checks_are_shown_with_their_numbers(ui: str, page: "playwright.Page") -> None:
    """The balance check shows the shares it compared."""
    page.goto(f"{ui}/assets/kmeans_model?view=checks")
    page.get_by_text("cluster_balance").first.wait_for()
    page.get_by_text("largest_share").first.wait_for()
    _picture(page, "checks")


def test_what_starts_runs_is_off_until_switched_on(ui: str, page: "playwright.Page") -> None:
    """The automation page lists schedules and sensors."""
    page.goto(f"{ui}/automation")
    for name in ("hourly", "daily", "new_sessions", "alert_on_failure"):
        page.get_by_text(name, exact=True).first.wait_for()
    _picture(page, "automation")
