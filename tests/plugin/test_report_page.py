"""The report's page as people use it: in a real Chromium, with the mouse, with the keyboard, on a narrow screen."""

from __future__ import annotations

import time

import pytest
from browser import chromium, complaints, emulate, overflow, requests, resize
from reporting import change, report, use

pytestmark = pytest.mark.browser

LEFT = [{"application": "forgotten", "state": "idle", "statement": "SELECT 1"}]
USES = [
    use("tests/test_a.py::test_reads", settled=0.05, reason="nothing was written"),
    use(
        "tests/test_a.py::test_writes", "rewind", wrote=[change("shop", 2), change("public.orders", 0, 1)], settled=0.2
    ),
    use("tests/test_b.py::test_drops", "discard", reason="more than rows of tables was written", settled=0.03),
    use("tests/test_b.py::test_leaves", left=LEFT, given_away=True),
    use(
        "tests/test_b.py::test_fails",
        "stay",
        outcome="failed",
        kept="seeddb_k_1",
        shown="seeddb shell seeddb_k_1\n+ name: <b>x</b>",
    ),
    use("tests/test_c.py", tests=["tests/test_c.py::test_one", "tests/test_c.py::test_two"], settled=0.01),
    use("tests/test_c.py::test_rolled", "rollback", wrote=[change("shop", 0, 0, 7)]),
    use("tests/test_c.py::test_only_reads", "readonly", wrote=None, outcome="skipped"),
]
MANY = 5000


@pytest.fixture(scope="module")
def browser():
    with chromium() as driver:
        yield driver


@pytest.fixture
def opened(browser, tmp_path):
    """Open the page of these uses; afterwards nobody may have complained."""

    def open_page(uses=USES, **facts):
        facts = {"built": {"shop/default": (2.5, "shop/seeds.py changed")}, "clones": 6, **facts}
        browser.get(report(uses, tmp_path / "report.html", **facts).as_uri())
        return browser

    resize(browser, 1280)
    emulate(browser, dark=False)
    complaints(browser)
    yield open_page
    assert complaints(browser) == []


def all_of(driver, selector):
    return driver.find_elements("css selector", selector)


def listed(driver):
    return [button.text.rpartition("::")[2] for button in all_of(driver, "td > button")]


def button(driver, text):
    return next(found for found in all_of(driver, "button") if found.text.startswith(text))


def press(driver, *keys):
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(driver).send_keys(*keys).perform()


def sort_of(driver):
    return {head.text: order for head in all_of(driver, "th") if (order := head.get_attribute("aria-sort")) != "none"}


def test_it_says_where_the_time_went_what_was_built_and_what_would_be_cheaper(opened):
    text = opened().find_element("css selector", "main").text
    assert "building templates 2.50 s" in text
    assert "shop/default: built in 2.50 s: shop/seeds.py changed" in text
    assert '1 test wrote nothing: isolation="readonly" would save' in text
    assert '1 test wrote what could be rolled back: isolation="rollback" would save' in text
    assert "1 failed" in text


def test_a_column_sorts_by_click_and_turns_round_and_says_so(opened):
    driver = opened()
    assert sort_of(driver) == {"Database": "descending"}
    assert listed(driver)[:3] == ["test_writes", "test_reads", "test_drops"]
    button(driver, "Wrote").click()
    assert sort_of(driver) == {"Wrote": "descending"}
    assert listed(driver)[:2] == ["test_rolled", "test_writes"]
    button(driver, "Wrote").click()
    assert sort_of(driver) == {"Wrote": "ascending"}
    button(driver, "Test").click()
    assert listed(driver)[0] == "test_reads"


def test_filters_add_up_and_are_taken_back(opened):
    driver = opened()
    button(driver, "kept").click()
    assert set(listed(driver)) == {"test_reads", "test_leaves", "tests/test_c.py"}
    button(driver, "discarded").click()
    assert len(listed(driver)) == 4
    button(driver, "left connections open").click()
    assert listed(driver) == ["test_leaves"]
    assert button(driver, "kept").get_attribute("aria-pressed") == "true"
    for name in ("kept", "discarded", "left connections open"):
        button(driver, name).click()
    assert len(listed(driver)) == len(USES)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("ORDERS", ["test_writes"]),
        ("test_b drop", ["test_drops"]),
        ("test_two", ["tests/test_c.py"]),
        ("more than rows", ["test_drops"]),
        ("nowhere", []),
    ],
)
def test_a_search_finds_tests_tables_and_reasons(opened, words, found):
    driver = opened()
    driver.find_element("css selector", "#search").send_keys(words)
    assert listed(driver) == found
    status = driver.find_element("css selector", "[role=status]").text
    assert status == ("1 row, of 8 in all" if found else "Nothing matches.")


def test_a_test_opens_and_shows_what_it_did(opened):
    driver = opened()
    for name in ("tests/test_b.py::test_fails", "tests/test_b.py::test_leaves", "tests/test_c.py"):
        next(found for found in all_of(driver, "td > button") if found.text == name).click()
    text = "\n".join(row.text for row in all_of(driver, "tr.detail"))
    assert "seeddb shell seeddb_k_1" in text
    assert "+ name: <b>x</b>" in text
    assert "forgotten, idle: SELECT 1" in text
    assert "Shared by 2 tests" in text
    for found in all_of(driver, "[aria-expanded=true]"):
        found.click()
    assert not all_of(driver, "tr.detail")


def test_the_keyboard_reaches_and_works_everything(opened):
    from selenium.webdriver.common.keys import Keys

    driver = opened()
    press(driver, Keys.TAB)
    reached = []
    while (focused := driver.switch_to.active_element).tag_name != "body":
        reached.append(focused.get_attribute("id") or focused.text)
        assert driver.execute_script("return getComputedStyle(document.activeElement).outlineStyle") != "none"
        if focused.text in {"Test", "failed 1", "tests/test_b.py::test_fails"}:
            press(driver, Keys.SPACE if focused.text == "failed 1" else Keys.ENTER)
        press(driver, Keys.TAB)
    names = ["Test", "Afterwards", "Wrote", "Database", "Test time", "Could save"]
    assert reached[0] == "search"
    assert [name for name in reached if name in names] == names
    assert listed(driver) == ["test_fails"]
    assert sort_of(driver) == {"Test": "ascending"}
    assert "seeddb shell seeddb_k_1" in driver.find_element("css selector", "tr.detail").text


def test_every_control_has_a_name_and_the_table_has_heads(opened):
    driver = opened()
    controls = all_of(driver, "button:not([hidden]), input, section, fieldset")
    assert [found.tag_name for found in controls if not found.accessible_name] == []
    assert [head.get_attribute("scope") for head in all_of(driver, "thead th")] == ["col"] * 6


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_at_400_pixels_nothing_is_cut_off(opened, dark):
    long = "tests/" + "a_very_long_directory/" * 4 + "test_x.py::test_" + "x" * 120 + "[" + "y" * 200 + "]"
    driver = opened([*USES, use(long, "discard", outcome="failed", reason="z" * 300, wrote=[change("t" * 63, 1)])])
    resize(driver, 400)
    emulate(driver, dark=dark)
    for found in all_of(driver, "td > button"):
        found.click()
    assert overflow(driver) <= 0
    boxes = driver.execute_script(
        "return [...document.querySelectorAll('main *')].map(node => node.getBoundingClientRect().right)"
    )
    assert max(boxes) <= 400


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_texts_stand_out_in_both_themes(opened, dark):
    driver = opened()
    emulate(driver, dark=dark)
    all_of(driver, "td > button")[0].click()
    button(driver, "kept").click()
    worst = driver.execute_script("""
        const light = colour => {
          const [r, g, b] = colour.match(/[\\d.]+/g).map(value => value / 255)
            .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const behind = node => {
          for (; node; node = node.parentElement) {
            const colour = getComputedStyle(node).backgroundColor;
            if (colour !== "rgba(0, 0, 0, 0)") return colour;
          }
        };
        const texts = [...document.querySelectorAll("main *")]
          .filter(node => [...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim()));
        return texts.map(node => {
          const [one, other] = [light(getComputedStyle(node).color), light(behind(node))].sort((a, b) => b - a);
          return [(one + 0.05) / (other + 0.05), node.textContent];
        }).sort((a, b) => a[0] - b[0])[0];
    """)
    assert worst[0] >= 4.5, worst


def test_no_request_leaves_the_page_and_its_policy_would_stop_one(opened):
    driver = opened()
    requests(driver)
    driver.refresh()
    for found in all_of(driver, "button")[:12]:
        found.click()
    assert set(requests(driver)) == {driver.current_url}
    assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0
    script = "const done = arguments[0]; fetch('http://127.0.0.1:9/').then(() => done('sent'), () => done('stopped'))"
    assert driver.execute_async_script(script) == "stopped"
    assert any("Content Security Policy" in line for line in complaints(driver))


def test_texts_from_tests_are_never_taken_for_code(opened):
    nasty = "</script><script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"
    left = [{"application": nasty, "state": nasty, "statement": nasty}]
    texts = {"reason": nasty, "shown": nasty, "kept": nasty, "left": left, "template": nasty, "tests": [nasty, nasty]}
    driver = opened([use(nasty, "stay", wrote=[change(nasty, 1)], **texts)], notes=[nasty], reused=[nasty])
    all_of(driver, "td > button")[0].click()
    assert driver.title == "Seeded databases: report"
    assert not all_of(driver, "img")
    assert all_of(driver, "td > button")[0].text == nasty


def test_five_thousand_tests_are_sorted_and_searched_at_once(opened):
    kinds = ("keep", "rewind", "discard", "rollback")
    uses = [use(f"tests/test_{n % 97}.py::test_{n}", kinds[n % 4], settled=n / 1e6) for n in range(MANY)]
    started = time.monotonic()
    driver = opened(uses)
    assert listed(driver)[0] == f"test_{MANY - 1}"
    button(driver, "Test").click()
    driver.find_element("css selector", "#search").send_keys("::test_49")
    assert driver.find_element("css selector", "[role=status]").text == "111 rows, of 5,000 in all"
    assert time.monotonic() - started < 20  # 2 s on a quiet machine
    driver.refresh()
    assert driver.find_element("css selector", "[role=status]").text == "The first 300 of 5,000"
    button(driver, "Show 3000 more").click()
    assert len(all_of(driver, "td > button")) == 3300


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"is_on": False}, "Seeded tests were skipped: run pytest with --seed-db."),
        ({}, "No test used a seeded database in this run."),
        ({"exit_status": 2}, "The run was interrupted."),
    ],
)
def test_a_run_without_databases_says_why(opened, facts, told):
    driver = opened([], built={}, clones=0, **facts)
    assert told in driver.find_element("css selector", "main").text
    assert not all_of(driver, "table")
