"""`seeded_db.diff` in tests: what a failed comparison shows, and the rows in a failed test's report."""

from __future__ import annotations

import pytest

HEAD = "import datetime\nimport pytest\n"
WRITE = """
    with seeded_db.connect() as connection:
        connection.execute("UPDATE shop SET name = 'renamed' WHERE id = 1")
        connection.execute("INSERT INTO shop (name) VALUES ('new')")
"""


@pytest.mark.slow
def test_a_comparison_that_fails_names_table_row_and_column(project):
    project.write(
        "test_it.py",
        f"""{HEAD}
def test_right(seeded_db):{WRITE}
    assert seeded_db.diff() == {{
        "shop": {{"inserted": [{{"id": int, "name": "new"}}], "updated": [{{"new": {{"id": 1, "name": "renamed"}}}}]}}
    }}

def test_wrong(seeded_db):{WRITE}
    assert seeded_db.diff(ignore=["shop.id"]) == {{"shop": {{"inserted": [{{"name": "old"}}], "updated": 1}}}}

def test_unknown(seeded_db):
    assert seeded_db.diff() == {{"shops": {{"inserted": 1}}}}
""",
    )
    result = project.run("-p", "no:randomly")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        [
            "E *the rows that the test changed are not the expected ones",
            "E *shop, inserted: no row has name='old'",
            "E *  the closest one has name='new'",
            "E *all that it changed:",
            "E *  + name='new'",
            "E *  ~ name=* -> 'renamed'",
            "*- seeddb -*",
            "shop  1 inserted, 1 updated",
            "shop",
            "  + id=*, name='new'",
            "  ~ id=1, name=* -> 'renamed'",
            "E *There is no table 'shops'",
        ]
    )


@pytest.mark.slow
def test_a_failed_tests_rows_show_no_secret_and_no_more_than_a_few(project):
    project.write(
        "test_it.py",
        f"""{HEAD}
def test_few(seeded_connection, seeded_db):
    seeded_connection.execute("INSERT INTO shop (name) SELECT 'other ' || n FROM generate_series(1, 20) n")
    seeded_connection.execute("CREATE TABLE IF NOT EXISTS person (password text)")
    seeded_connection.commit()
    assert not seeded_db.diff(tables=["person"])
    seeded_connection.execute("INSERT INTO person VALUES ('hunter2')")
    seeded_connection.commit()
    text = str(seeded_db.diff())
    assert "hunter2" not in text
    assert "password=***" in text
    assert "  + and 15 more" in text
    raise ValueError

def test_many(seeded_connection):
    seeded_connection.execute("INSERT INTO shop (name) SELECT 'other ' || n FROM generate_series(1, 2000) n")
    seeded_connection.commit()
    raise ValueError
""",
    )
    result = project.run("-p", "no:randomly")
    result.assert_outcomes(failed=2)
    output = result.stdout.str()
    assert "shop  2000 inserted\n" in output
    assert "name='other 7'" not in output
