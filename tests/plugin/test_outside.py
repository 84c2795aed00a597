"""Nothing is written to the application's own database on behalf of a seeded test; who writes there else is named."""

from __future__ import annotations

import sys

import psycopg
import pytest

pytestmark = pytest.mark.slow

APP = """
    from sqlalchemy import create_engine, text

    engine = create_engine("{url}")

    def add(name):
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO shop (name) VALUES (:name)"), {{"name": name}})
"""
SEEDED_CLASS = """
    class TestIt:
        @classmethod
        def setup_class(cls):
            app.add("setup_class")
        @pytest.mark.seeded
        def test_it(self):
            app.add("test")
"""
TEARS_DOWN = """
    @pytest.fixture(scope="module")
    def shared():
        yield
        app.add("tear-down")
    @pytest.mark.seeded
    def test_it(shared):
        app.add("test")
"""
WIDE = """
    @pytest.fixture(scope="{scope}")
    def shared():
        app.add("{scope}")
    @pytest.mark.seeded
    def test_it(shared):
        app.add("test")
"""
FACTORY = """
    def test_it(seeded_db_factory):
        with seeded_db_factory():
            app.add("block")
"""
UNITTEST = """
    import unittest
    @pytest.mark.seeded
    class ItTests(unittest.TestCase):
        @classmethod
        def setUpClass(cls):
            app.add("setUpClass")
        def test_it(self):
            app.add("test")
"""
MODULE = """
    pytestmark = pytest.mark.seeded
    def setup_module():
        app.add("setup_module")
    def test_it():
        app.add("test")
"""
IN_A_THREAD = """
    from concurrent.futures import ThreadPoolExecutor
    @pytest.fixture(scope="module")
    def shared():
        with ThreadPoolExecutor() as pool:
            pool.submit(app.add, "thread").result()
    @pytest.mark.seeded
    def test_it(shared):
        app.add("test")
"""
REFUSED = {
    "a module's fixture": (WIDE.format(scope="module"), "the fixture 'shared' (module scope), for test_it.py::test_it"),
    "the session's": (WIDE.format(scope="session"), "the fixture 'shared' (session scope), for test_it.py::test_it"),
    "its tear-down": (TEARS_DOWN, "the tear-down of the fixture 'shared' (module scope), for test_it.py::test_it"),
    "its thread": (IN_A_THREAD, "the thread 'ThreadPoolExecutor-"),
    "setup_class": (SEEDED_CLASS, "setup_class of TestIt, for test_it.py::TestIt::test_it"),
    "setUpClass": (UNITTEST, "setUpClass of ItTests, for test_it.py::ItTests::test_it"),
    "setup_module": (MODULE, "setup_module of test_it, for test_it.py::test_it"),
    "a factory's block": (FACTORY, "test_it.py::test_it"),
}
HALF = """
    import pytest, app
    @pytest.fixture(scope="session", autouse=True)
    def own_rows():
        app.add("for unmarked tests")
    {first}
    def test_one():
        app.add("one")
    {second}
    def test_two():
        app.add("two")
"""


@pytest.fixture
def own_rows(project, empty_database):
    """A project whose application has a database of its own, and what is in there."""
    with psycopg.connect(empty_database.conninfo) as connection:
        connection.execute("CREATE TABLE shop (id serial, name text)")
    project.table('engines = ["app:engine"]')
    project.write("app.py", APP.format(url=empty_database.url_for("postgresql+psycopg")))
    project.place = f"{empty_database.params['host']}/{empty_database.database}"

    def rows():
        with psycopg.connect(empty_database.conninfo) as connection:
            return [name for (name,) in connection.execute("SELECT name FROM shop ORDER BY id")]

    return rows


@pytest.mark.parametrize("kind", REFUSED)
def test_nothing_is_written_on_behalf_of_a_seeded_test(kind, project, own_rows):
    code, asker = REFUSED[kind]
    result = project.test(f"    import pytest, app\n{code}")
    assert result.ret == 1
    assert own_rows() == []
    text = result.stdout.str()
    assert "app:engine was about to connect to its own database instead of a seeded test's" in text
    assert f"{project.place}, asked for by {asker}" in text
    assert 'outside = "say"' in text


@pytest.mark.parametrize("marked", ["first", "second", "none"])
def test_a_suite_half_of_which_is_unmarked_is_as_green_as_before_and_says_where_it_wrote(marked, project, own_rows):
    marks = {"first": "", "second": "", marked: "@pytest.mark.seeded"}
    result = project.test(HALF.format(first=marks["first"], second=marks["second"]), "-q")
    result.assert_outcomes(passed=2)
    unmarked = {"first": ["two"], "second": ["one"], "none": ["one", "two"]}[marked]
    assert own_rows() == ["for unmarked tests", *unmarked]
    assert f"seeddb: app:engine connected to its own database {project.place}, first in the fixture" in (
        result.stdout.str()
    )


def test_collection_may_connect_and_is_said(project, own_rows):
    project.test("import app, pytest\napp.add('x')\n@pytest.mark.seeded\ndef test_it(): app.add('y')").assert_outcomes(
        passed=1
    )
    assert own_rows() == ["x"]


def test_an_open_connection_of_an_unmarked_test_is_not_used_on_behalf_of_a_seeded_one(project, own_rows):
    result = project.test(
        """
        import pytest, app
        @pytest.fixture(scope="class")
        def shared():
            app.add("class")
        def test_unmarked():
            app.add("unmarked")
        class TestIt:
            @pytest.mark.seeded
            def test_seeded(self, shared):
                pass
        """
    )
    result.assert_outcomes(passed=1, errors=1)
    assert own_rows() == ["unmarked"]


@pytest.mark.parametrize(("value", "rows"), [("say", ["module"]), ("allow", ["module"]), ("refuse", [])])
def test_the_setting_decides(value, rows, project, own_rows):
    project.table(f'engines = ["app:engine"]\noutside = "{value}"')
    result = project.test(f"    import pytest, app\n{WIDE.format(scope='module')}")
    assert own_rows() == rows
    assert ("connected to its own database" in result.stdout.str()) == (value == "say")


def test_refuse_refuses_unmarked_tests_too(project, own_rows):
    project.table('engines = ["app:engine"]\noutside = "refuse"')
    result = project.test("import app\ndef test_it(): app.add('unmarked')")
    result.assert_outcomes(failed=1)
    assert own_rows() == []


def test_a_thread_that_outlives_its_seeded_test_gets_an_error_of_its_own(project, own_rows):
    result = project.test(
        """
        import threading, time, pytest, app
        stop, errors = threading.Event(), set()
        def poll():
            while not stop.is_set():
                try:
                    app.add("poll")
                except Exception as error:
                    errors.add(type(error).__name__)
                time.sleep(0.001)
        @pytest.fixture(scope="module", autouse=True)
        def poller():
            thread = threading.Thread(target=poll)
            thread.start()
            yield
            time.sleep(0.1)
            stop.set()
            thread.join()
            assert "ConfigError" in errors
        @pytest.mark.seeded
        @pytest.mark.parametrize("number", range(3))
        def test_it(number):
            time.sleep(0.02)
        """
    )
    result.assert_outcomes(passed=3)
    assert own_rows() == []


HELD = """
    import app, pytest
    from sqlalchemy import text
    from sqlalchemy.orm import Session
    held = app.engine.connect()
    automatic = app.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    session = Session(app.engine)
    for connection in (held, automatic, session):
        connection.execute(text("SELECT 1"))
    @pytest.mark.seeded
    @pytest.mark.parametrize("connection", [held, automatic, session], ids=["held", "automatic", "session"])
    def test_it(connection):
        connection.execute(text("INSERT INTO shop (name) VALUES ('held')"))
        getattr(connection, "commit", int)()
    def test_not_seeded():
        held.execute(text("INSERT INTO shop (name) VALUES ('not seeded')"))
        held.commit()
"""


def test_a_connection_that_is_held_since_before_the_test_is_refused(project, own_rows):
    project.table('engines = ["app:engine"]')
    result = project.test(HELD)
    result.assert_outcomes(passed=2, failed=2)  # what the session held was closed with the first test
    result.stdout.fnmatch_lines(["*app:engine was about to connect to its own database instead of a seeded test's*"])
    assert own_rows() == ["not seeded"]


LATE = """
    import pytest, queue, threading, time, app
    from concurrent.futures import ThreadPoolExecutor
    errors, go, pool = queue.Queue(), threading.Event(), ThreadPoolExecutor(1)
    def late():
        go.wait(10)
        try:
            app.add(f"late {threading.get_ident()}")
            errors.put("")
        except Exception as error:
            errors.put(str(error))
    class Own(threading.Thread):
        def run(self):
            late()
    def timed():
        late()
    WAYS = {
        "target": lambda: threading.Thread(target=late).start(),
        "class": lambda: Own().start(),
        "timer": lambda: threading.Timer(0.1, timed).start(),
    }
    @pytest.mark.seeded
    @pytest.mark.parametrize("way", WAYS)
    def test_starts(way):
        pool.submit(int).result()
        WAYS[way]()
    @pytest.mark.seeded
    def test_next(seeded_connection):
        go.set()
        told = [errors.get(timeout=10) for _ in WAYS]
        assert all("of a later test" in error and "left running" in error for error in told) == REFUSED, told
        pool.submit(app.add, "of the pool").result()
        names = [name for (name,) in seeded_connection.execute("SELECT name FROM shop ORDER BY name")]
        assert names.count("of the pool") == 1
        assert sum(name.startswith("late") for name in names) == (0 if REFUSED else 3)
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["", "refuse", "say", "allow"])
def test_a_thread_that_a_test_left_running_is_refused_the_next_tests_database(project, own_rows, mode):
    project.table('engines = ["app:engine"]' + f"\noutside = {mode!r}" * bool(mode))
    result = project.test(LATE.replace("REFUSED", str(mode in {"", "refuse"})))
    result.assert_outcomes(passed=4)
    told = "app:engine connected to the database of a later test, first in the thread"
    assert (told in result.stdout.str()) == (mode == "say")
    assert own_rows() == []


def test_a_database_of_the_factory_can_be_given_to_the_engines_for_a_block(project, own_rows):
    result = project.test(
        """
        import os, psycopg, pytest, app
        @pytest.fixture(scope="module")
        def shared(seeded_db_factory):
            with seeded_db_factory() as database, database.activate():
                app.add("shared")
                yield database
        def count(database):
            with database.connect() as connection:
                return connection.execute("SELECT count(*) FROM shop").fetchone()[0]
        def test_of_the_block(shared):
            assert count(shared) == 4
            app.add("more")
            assert count(shared) == 5
        def test_of_its_own(shared, seeded_db):
            app.add("mine")
            assert (count(shared), count(seeded_db)) == (5, 4)
        def test_of_the_block_again(shared):
            assert count(shared) == 5
        def test_an_engine_made_for_the_url(seeded_db_factory):
            from sqlalchemy import create_engine, text
            with seeded_db_factory() as database:
                app.engine = create_engine(database.url.replace("://", "+psycopg://"))
                app.add("by its url")
                assert count(database) == 4
                app.engine.dispose()
        """
    )
    result.assert_outcomes(passed=4)
    assert own_rows() == []


def test_xdist_says_it_once(project, own_rows):
    project.write("test_other.py", "import app\ndef test_it(): app.add('other')")
    result = project.test("import app\ndef test_it(): app.add('it')", "-n", "2")
    result.assert_outcomes(passed=2)
    assert result.stdout.str().count("connected to its own database") == 1


CHILDREN = """
    import multiprocessing, os, subprocess, sys
    import pytest, app
    pytestmark = pytest.mark.seeded
    def run(*words, **more):
        subprocess.run([sys.executable, *words], check=True, **more)
    def test_others():
        run("-c", "import json")
        run("-m", "json.tool", "--help")
        run("tool.py")
        subprocess.run(["git", "--version"])
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            pool.map(abs, [1])
    def test_it_has_the_url(seeded_db):
        run("app.py", env={**os.environ, "ANY": seeded_db.url})
    def test_fork():
        child = multiprocessing.get_context("fork").Process(target=app.add, args=("fork",))
        child.start()
        child.join()
    def test_own():
        run("app.py")
        run("-W", "ignore", "-m", "app")
        subprocess.run("python app.py", shell=True)
    def test_spawn():
        child = multiprocessing.get_context("spawn").Process(target=app.add, args=("spawn",))
        child.start()
        child.join()
"""


def test_a_child_process_that_knows_the_applications_own_database_only_is_said_once(project, own_rows):
    project.write("tool.py", "import json")
    result = project.test(CHILDREN)
    result.assert_outcomes(passed=5)
    assert own_rows() == ["spawn"]
    lines = [line for line in result.outlines if "the child process" in line]
    assert [line.partition("`")[2].partition("`")[0] for line in lines] == [
        "python app.py",
        "python -m app",
        "multiprocessing: app",
    ]
    advice = (
        "(name the variable that it reads in `env`, and start it in the test or in a fixture of the setting `scope`, "
    )
    assert f"{advice}'function'; or give it `seeded_db.url`), first in test_it.py::" in lines[0]
    project.table('engines = ["app:engine"]\nenv = "DATABASE_URL"')
    only_one = CHILDREN.partition("    def test_others")[0] + "    def test_own():\n        run('app.py')\n"
    assert "the child process" not in project.test(only_one).stdout.str()


SERVERS = {
    "an installed program": (("{bin}/uvicorn", "app:engine"), "uvicorn app"),
    "a module that is not the project's": (
        ("{bin}/python", "-m", "uvicorn", "--port", "1", "app:x"),
        "python -m uvicorn app",
    ),
    "an option": (("{bin}/celery", "-A", "app", "worker"), "celery app"),
    "an option with its value": (("{bin}/celery", "--app=app"), "celery app"),
    "the project's own program": (("{bin}/shop",), "shop"),
    "another program": (("/bin/ls", "app:engine", "app.py"), ""),
    "no module of the project": (("{bin}/uvicorn", "json:tool", "-m", "app.css"), ""),
}


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("table", ['engines = ["app:engine"]', 'env = "SHOP_URL"'])
def test_a_server_that_a_session_fixture_starts_before_there_is_a_database_is_said(kind, table, project, own_rows):
    words, said = SERVERS[kind]
    app = (project.path / "app.py").read_text()
    project.write("app.py", f"import os\nURL = os.environ.get('SHOP_URL')\n{app}")
    for name, module in {"uvicorn": "json", "celery": "json", "shop": "app"}.items():
        project.write(f"bin/{name}", f"#!{sys.executable}\nimport {module}").chmod(0o755)
    (project.path / "bin" / "python").symlink_to(sys.executable)
    project.table(table)
    result = project.test(
        f"""
        import subprocess, pytest
        @pytest.fixture(scope="session")
        def server():
            subprocess.run({[word.format(bin=project.path / "bin") for word in words]!r}, stderr=subprocess.DEVNULL)
        @pytest.mark.seeded
        def test_it(server): pass
        """
    )
    result.assert_outcomes(passed=1)
    lines = [line for line in result.outlines if "the child process" in line]
    assert [line.partition("`")[2].partition("`")[0] for line in lines] == [said] * bool(said)
    assert all(("name the variable" in line) is ("env" not in table) for line in lines)
    assert all("start it in the test or in a fixture of the setting `scope`, 'function'" in line for line in lines)


def test_without_the_option_nothing_is_watched(project, own_rows):
    project.write("test_it.py", "import app\ndef test_it(): app.add('x')")
    result = project.run(enabled=False)
    result.assert_outcomes(passed=1)
    assert own_rows() == ["x"]
    assert "its own database" not in result.stdout.str()
