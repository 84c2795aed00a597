"""The documentation as a site, in a real browser: it is found, searched and read without any other server."""

from __future__ import annotations

import functools
import http.server
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from browser import chromium, complaints, overflow, requests, resize
from processes import eventually

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Keep what is asked for out of the tests' output."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The address of the site, which was built just now."""
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(place)]
    subprocess.run(command, cwd=ROOT, check=True)
    handler = functools.partial(_Quiet, directory=str(place))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def driver():
    with chromium() as driver:
        yield driver


def find(driver, selector):
    return driver.find_element("css selector", selector)


def test_a_reader_finds_a_page_by_the_navigation_and_by_search(driver, site):
    resize(driver, 1280)
    driver.get(site)
    driver.find_element("partial link text", "Fixtures").click()
    eventually(lambda: find(driver, "h1").text.startswith("Fixtures"))
    find(driver, "[data-md-component=search-query]").send_keys("isolation")
    eventually(lambda: driver.find_elements("css selector", ".md-search-result__link"))
    hits = [hit.get_attribute("href") for hit in driver.find_elements("css selector", ".md-search-result__link")]
    assert any("/explanation/isolation/" in hit for hit in hits), hits


def test_the_python_reference_has_every_public_name(driver, site):
    import pytest_seeddb

    driver.get(f"{site}/reference/api/")
    headings = {heading.get_attribute("id") for heading in driver.find_elements("css selector", "h2")}
    assert {f"pytest_seeddb.{name}" for name in pytest_seeddb.__all__} <= headings
    assert find(driver, "[id='pytest_seeddb.SeededDatabase.diff']").text


def test_dark_colours_are_one_click_away(driver, site):
    resize(driver, 1280)
    driver.get(site)
    colours = lambda: driver.execute_script("return getComputedStyle(document.body).backgroundColor")  # noqa: E731
    light = colours()
    find(driver, "label[title='Dark colours']").click()
    eventually(lambda: colours() != light)


@pytest.mark.parametrize("path", ["", "reference/settings/", "reference/api/", "explanation/performance/"])
def test_a_page_is_readable_on_a_narrow_screen_and_asks_no_other_server(driver, site, path):
    resize(driver, 400)
    requests(driver), complaints(driver)
    driver.get(f"{site}/{path}")
    eventually(lambda: driver.execute_script("return document.readyState") == "complete")
    assert overflow(driver) <= 0
    assert [url for url in requests(driver) if not url.startswith(site)] == []
    assert [text for text in complaints(driver) if "versions.json" not in text] == []


def test_a_dead_link_is_an_error(tmp_path):
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    with (tmp_path / "docs" / "tutorial.md").open("a") as page:
        page.write("\n[gone](how-to/django.md#gone)\n")
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "#gone" in done.stderr
