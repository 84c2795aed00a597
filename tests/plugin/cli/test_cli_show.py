"""``seeddb show``: what a template holds, in the terminal, as JSON and as a page in a real browser."""

from __future__ import annotations

import json

import pytest

SCHEMA = """
CREATE TABLE shop (id int PRIMARY KEY, name text, api_token text, above int REFERENCES shop);
CREATE SCHEMA "odd ones";
CREATE TABLE "odd ones"."<b>Ta ble" (shop_id int REFERENCES shop, data bytea, "long" text);
CREATE TABLE a (id int PRIMARY KEY, b int);
CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a);
ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE empty ();
INSERT INTO shop VALUES (1, 'of the migration', 'hunter2', NULL);
"""
FIRST = """
INSERT INTO shop SELECT n, 'shop ' || n, 'hunter' || n, 1 FROM generate_series(2, 5) n;
INSERT INTO a VALUES (1, 1); INSERT INTO b VALUES (1, 1);
"""
SECOND = r"""
UPDATE shop SET name = 'renamed' WHERE id = 5;
INSERT INTO "odd ones"."<b>Ta ble" VALUES (1, '\x00ff', repeat('<i>long</i> ', 50));
"""
ODD = "odd ones.<b>Ta ble"


@pytest.fixture
def shop(project, seeddb):
    project.write("db/001_shop.sql", SCHEMA)
    project.write("seeds/shops.sql", FIRST)
    project.write("seeds/then.sql", SECOND)
    return seeddb


@pytest.mark.slow
def test_it_tells_who_wrote_the_rows_and_who_refers_to_whom_without_secrets(shop):
    result = json.loads(shop("show", "--json", "--rows", "1").stdout)
    tables = {table["name"]: table for table in result["tables"]}
    assert {name: table["rows"] for name, table in tables.items()} == {"a": 1, "b": 1, "empty": 0, ODD: 1, "shop": 5}
    by = {step.rpartition("/")[2]: number for step, number in tables["shop"]["by"].items()}
    assert by == {"001_shop.sql": 1, "shops.sql": 3, "then.sql": 1}
    assert tables["shop"]["sample"] == [["1", "of the migration", "***", "NULL"]]
    assert tables[ODD]["sample"] == [["1", "2 bytes", "<i>long</i> <i>long</i> <i>long</i> <..."]]
    assert {(key["table"], *key["columns"], key["target"]) for key in map(dict_of, result["references"])} == {
        ("a", "b", "b"),
        ("b", "a", "a"),
        (ODD, "shop_id", "shop"),
        ("shop", "above", "shop"),
    }
    told = shop("show", "--table", "shop").stdout
    assert "hunter" not in told
    assert "  shop (above) -> shop" in told
    assert "then.sql: 1" in told
    missing = shop("show", "--table", "shops", code=2)
    assert "The template has no table 'shops'" in missing.stderr
    assert "Did you mean 'shop'?" in missing.stderr


def dict_of(reference):
    """A reference in JSON is a list."""
    return dict(zip(("table", "columns", "target"), reference, strict=True))


@pytest.mark.slow
def test_a_template_that_an_earlier_version_built_is_shown_without_the_steps(shop, seeddb, embedded_server):
    import psycopg

    name = json.loads(shop("show", "--json").stdout)["template"]
    with psycopg.connect(embedded_server.address.conninfo, autocommit=True) as connection:
        (comment,) = connection.execute(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", [name]
        ).fetchone()
        record = json.loads(comment)
        assert record.pop("moments")
        query = psycopg.sql.SQL("COMMENT ON DATABASE {} IS {}")
        connection.execute(query.format(psycopg.sql.Identifier(name), psycopg.sql.Literal(json.dumps(record))))
    result = json.loads(shop("show", "--json", "--table", "shop").stdout)
    assert result["template"] == name
    assert result["tables"][0]["by"] == {"not known": 5}


@pytest.mark.slow
def test_an_empty_template_and_a_page_that_cannot_be_written_are_told(project, seeddb):
    project.write("pyproject.toml", '[project]\nname = "little-shop"\n[tool.seeddb]\nmigrations = "db"\n')
    project.write("db/001_shop.sql", "SELECT 1;")
    assert "it has no tables" in seeddb("show").stdout
    project.write("blocked", "")
    told = seeddb("show", "--html", "blocked/page.html", code=2).stderr
    assert "The page cannot be written" in told
    assert "the option --html" in told


@pytest.mark.browser
def test_the_page_shows_the_tables_and_a_picture_to_mouse_keyboard_and_narrow_screens(shop, project):
    from browser import chromium, complaints, emulate, overflow, requests, resize

    assert "written to " in shop("show", "--html", "pages/shop.html").stdout
    page = project.path / "pages" / "shop.html"
    assert "hunter" not in page.read_text()
    with chromium() as driver:
        driver.get(page.as_uri())
        names = lambda: [  # noqa: E731 - asked again and again
            heading.text.partition(" rows")[0].rpartition(" ")[0]
            for heading in driver.find_elements("css selector", "section h2")
            if heading.is_displayed()
        ]
        assert names() == [ODD, "a", "b", "empty", "shop"]
        boxes = driver.find_elements("css selector", "svg a")
        assert sorted(box.find_element("css selector", "text").text for box in boxes) == ["a", "b", ODD, "shop"]
        assert len(driver.find_elements("css selector", "svg path.key")) == 4
        lefts = {box.text.partition("\n")[0].split(" ")[0]: box.rect["x"] for box in boxes}
        assert lefts["shop"] < lefts["odd"], "who refers to another stands to the right of it"
        driver.find_element("css selector", "svg a").send_keys("\n")
        assert "#table-" in driver.current_url
        search = driver.find_element("id", "search")
        search.send_keys("SHOP")
        assert names() == ["shop"]
        assert driver.find_element("id", "found").text == "1 of 5 tables"
        for dark in (False, True):
            emulate(driver, dark=dark)
            resize(driver, 400)
            assert overflow(driver) <= 0
        assert {url.partition("#")[0] for url in requests(driver)} == {page.as_uri()}
        assert complaints(driver) == []
