"""`build = "process"`: an application that can be made only once in a process."""

from __future__ import annotations

import pytest

APPLICATION = """
    from sqlalchemy import Connection

    made = []

    def create_app():
        assert not made, "the metrics are registered already"
        made.append(1)
        print("made")

    def migrate(connection: Connection):
        create_app()
        connection.exec_driver_sql("CREATE TABLE shop (id int)")
"""
TESTS = """
    import shop

    def test_one(seeded_connection):
        shop.create_app()
        assert seeded_connection.execute("SELECT count(*) FROM shop").fetchone() == (0,)
"""


@pytest.mark.slow
def test_a_build_in_a_process_of_its_own_leaves_the_tests_one_alone(project):
    project.write("shop.py", APPLICATION)
    project.write("pyproject.toml", "[tool.seeddb]\nmigrations = 'shop:migrate'\nbuild = 'process'\n")
    project.write("conftest.py", "import sys\nsys.path.insert(0, '.')\n")
    result = project.test(TESTS)
    result.assert_outcomes(passed=1)
    assert "built in" in result.stdout.str()
    again = project.run()
    again.assert_outcomes(passed=1)
    assert "built in" not in again.stdout.str()

    project.write("shop.py", APPLICATION.replace("made.append(1)", 'raise OSError("no metrics")'))
    result = project.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*BuildError: shop:migrate failed at shop.py:8", "*saw:  OSError: no metrics"])
