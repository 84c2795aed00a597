"""Several tables below one root, in one run."""

from __future__ import annotations

import pytest

TEST = """
    import pytest

    SEEN = []

    @pytest.mark.parametrize("n", range(2))
    def test_shops(seeded_connection, seeded_db, seeddb_settings, n):
        assert seeded_connection.execute("SELECT name FROM {table}").fetchall() == [("{row}",)]
        SEEN.append(seeded_db.name)
        assert (seeddb_settings.name, seeddb_settings.scope) == ("{name}", "{scope}")
        if n:
            assert (SEEN[0] == SEEN[1] and seeded_db is not None) or "{scope}" == "function"

    def test_whether_it_is_seeded(request):
        assert request.node.get_closest_marker("seeded") is None
"""


@pytest.fixture
def monorepo(project):
    """Two applications with tables of their own below a root without one, and a library without any."""
    (project.path / "pyproject.toml").write_text("[tool.pytest.ini_options]\naddopts = '--import-mode=importlib'\n")
    for name, scope in (("api", "function"), ("web", "module")):
        table = f"migrations = 'db'\nscope = '{scope}'\nname = '{name}'\nseeds = ['rows.sql']\n"
        project.write(f"apps/{name}/seeddb.toml", table)
        project.write(f"apps/{name}/db/1.sql", f"CREATE TABLE of_{name} (name text);")
        project.write(f"apps/{name}/rows.sql", f"INSERT INTO of_{name} VALUES ('row of {name}');")
        text = TEST.format(table=f"of_{name}", row=f"row of {name}", name=name, scope=scope)
        project.write(f"apps/{name}/tests/test_{name}.py", text)
    project.write("lib/test_lib.py", "def test_lib(): ...")
    return project


@pytest.mark.slow
@pytest.mark.embedded  # a database is kept
def test_each_has_its_own_plan_and_settings_in_one_run(monorepo):
    with (monorepo.path / "apps/web/seeddb.toml").open("a") as table:
        table.write("keep = 'all'\n")
    result = monorepo.run("--seed-db-report")
    result.assert_outcomes(passed=7)
    text = result.stdout.str()
    assert "template api/default" in text
    assert "template web/default" in text
    assert " ms  apps/api/tests/test_api.py" in text
    assert " ms  apps/web" not in text  # kept, and not settled


@pytest.mark.slow
def test_a_session_s_database_ends_where_another_table_s_tests_begin(project):
    project.table("scope = 'session'\nenv = 'DATABASE_URL'")
    project.write("b/seeddb.toml", "migrations = '../db'\nscope = 'session'\nenv = 'DATABASE_URL'\nname = 'b'\n")
    for name in "abc":
        project.write(
            f"{name}/test_{name}.py",
            """
            import os

            def test_url(seeded_db):
                assert os.environ["DATABASE_URL"] == seeded_db.url
            """,
        )
    project.write("d/test_d.py", "import os\n\ndef test_none():\n    assert 'DATABASE_URL' not in os.environ\n")
    project.run("a", "b", "c").assert_outcomes(passed=3)
    with (project.path / "b/seeddb.toml").open("a") as table:
        table.write("enabled = 'always'\n")
    project.run(enabled=False).assert_outcomes(passed=2, skipped=2)


OWN = """
    import app_{name}, pytest

    @pytest.fixture(scope="module")
    def own():
        app_{name}.engine.connect()

    @pytest.mark.seeded
    def test_seeded(own): ...
"""


@pytest.mark.slow
def test_each_table_decides_about_connections_to_its_application_s_own_database(monorepo):
    (monorepo.path / "pyproject.toml").write_text("[tool.pytest.ini_options]\npythonpath = ['apps/api', 'apps/web']\n")
    for name, more in (("api", ""), ("web", "outside = 'say'")):
        table = f"migrations = 'db'\nname = '{name}'\nengines = ['app_{name}:engine']\n{more}\n"
        monorepo.write(f"apps/{name}/seeddb.toml", table)
        url = f"postgresql+psycopg:///of_{name}?host=/nonexistent"
        text = f"from sqlalchemy import create_engine\n\nengine = create_engine('{url}')\n"
        monorepo.write(f"apps/{name}/app_{name}.py", text)
        monorepo.write(f"apps/{name}/tests/test_{name}.py", OWN.format(name=name))
    result = monorepo.run()
    result.assert_outcomes(errors=2, passed=1)
    text = result.stdout.str()
    assert "app_api:engine was about to connect to its own database" in text
    assert "app_web:engine was about to connect" not in text
    assert "seeddb: app_web:engine connected to its own database /nonexistent/of_web, first in the fixture" in text


@pytest.mark.slow
def test_a_conftest_overrides_its_table_and_only_one_may_be_always_enabled(monorepo):
    monorepo.write(
        "apps/api/conftest.py",
        """
        import pytest

        @pytest.fixture(scope="session", name="seeddb_settings")
        def _settings(seeddb_settings):
            assert seeddb_settings.name == "api"
            return seeddb_settings.replace(seeds=[], engines=[])
        """,
    )
    with (monorepo.path / "apps/api/seeddb.toml").open("a") as table:
        table.write("enabled = 'always'\nengines = ['missing:engine']\n")
    text = "def test_none(seeded_connection):\n    assert not seeded_connection.execute('TABLE of_api').fetchall()\n"
    monorepo.write("apps/api/tests/test_api.py", text)
    result = monorepo.run(enabled=False)
    result.assert_outcomes(passed=3, skipped=2)


@pytest.mark.slow
def test_what_is_wrong_in_one_of_them_is_told_with_its_file(monorepo):
    monorepo.write("apps/web/seeddb.toml", "migration = 'db'\n")
    for options, enabled in (((), True), ((), False), (("-n", "1"), True)):
        result = monorepo.run(*options, enabled=enabled)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        text = result.stderr.str() + result.stdout.str()
        assert "`migration` is not a setting of pytest-seeddb" in text
        assert f"{monorepo.path}/apps/web/seeddb.toml" in text
        assert "INTERNALERROR" not in text


def test_a_root_elsewhere_leaves_the_table_of_the_directory_in_which_pytest_is_started(project, monkeypatch):
    project.write("conf/pytest.ini", "[pytest]\n")
    project.write("app/pyproject.toml", "[tool.seeddb]\nmigration = 'db'\n")
    project.write("app/test_it.py", "def test_one(): ...")
    monkeypatch.chdir(project.path / "app")
    result = project.run("-c", "../conf/pytest.ini", ".")
    assert f"[tool.seeddb] in {project.path}/app/pyproject.toml" in result.stderr.str()


def test_a_package_s_tests_have_the_table_above_the_package(monorepo, monkeypatch):
    for directory in ("", "tests/"):
        monorepo.write(f"apps/api/shop/{directory}__init__.py", "")
    monorepo.write(
        "apps/api/shop/tests/test_it.py", "def test_it(seeddb_settings): assert seeddb_settings.name == 'api'"
    )
    monkeypatch.setenv("PYTHONPATH", str(monorepo.path / "apps/api"))
    monorepo.run("--pyargs", "shop.tests").assert_outcomes(passed=1)
