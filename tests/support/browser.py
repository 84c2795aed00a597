"""A real headless Chromium, driven by its chromedriver; every request that its pages make is on record."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager

# A browser that calls home would hide the requests of the page among its own.
QUIET = """
--headless=new --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --disable-default-apps --disable-dev-shm-usage
"""


@contextmanager
def chromium(*, width=1280, height=900, dark=False):
    """A driver with a window of that size in pixels, and with an empty profile; closed at the end.

    Without Chromium the test fails: ``apt-get install chromium chromium-driver`` brings both programs.
    """
    # Not above: all environments collect the tests that use this, one has the library.
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    program = shutil.which("chromium") or shutil.which("google-chrome")
    chromedriver = shutil.which("chromedriver")
    assert program, "Chromium is not installed: apt-get install chromium"
    assert chromedriver, "chromedriver is not installed: apt-get install chromium-driver"
    options.binary_location = program
    for argument in QUIET.split():
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # it refuses to run as root with one
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    try:
        resize(driver, width, height)
        emulate(driver, dark=dark)
        yield driver
    finally:
        driver.quit()


def resize(driver, width, height=900):
    """The page is that wide, narrower than a window can be."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def emulate(driver, *, dark):
    """The page is asked for dark or for light colours."""
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def requests(driver):
    """The URLs that pages have asked for since the last call, without those that they carry themselves."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith(("data:", "blob:"))]


def complaints(driver):
    """What the pages wrote to the console since the last call: errors of scripts, refusals by a policy."""
    return [entry["message"] for entry in driver.get_log("browser")]


def overflow(driver):
    """By how many pixels the page is wider than its window."""
    return driver.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
