"""A server in a container, on a real engine: one for all, gone after the last, and clear where it cannot be had."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
import uuid
from contextlib import closing

import docker  # noqa: F401 - pytester forgets what is first imported inside of a test, and half of it stays
import pytest
import testcontainers.core.docker_client  # noqa: F401 - likewise
from command import Command

from pytest_seeddb.servers.container import LABEL
from pytest_seeddb.servers.engine import connect

pytestmark = pytest.mark.container

IMAGE = os.environ.get("TESTS_IMAGE", "postgres:15")
TESTS = """
    import time
    import pytest

    @pytest.mark.parametrize("n", range(8))
    @pytest.mark.seeded
    def test_it(n, seeded_db):
        with seeded_db.connect() as connection:
            assert connection.execute("SELECT count(*) FROM shop").fetchone() == (4,)
            connection.execute("INSERT INTO shop (name) VALUES ('more')")
"""


@pytest.fixture
def engine():
    with closing(connect("the tests")) as engine:
        yield engine


@pytest.fixture
def ours(engine):
    """The containers of this test's own: it makes them like no other's."""

    def listed():
        return [each for each in engine.client.containers.list(all=True, ignore_removed=True) if each.labels.get(LABEL)]

    return listed


@pytest.fixture
def project(project, monkeypatch):
    """In a cache directory of its own, so that no other test's container is joined."""
    own = project.path / "cache"
    own.mkdir(mode=0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(own))
    monkeypatch.setenv("SEEDDB_SERVER", "container")
    monkeypatch.setenv("SEEDDB_IMAGE", IMAGE)
    monkeypatch.delenv("SEEDDB_POSTGRES", raising=False)
    monkeypatch.setenv("SEEDDB_TMPFS", f"{256 + uuid.uuid4().int % 256}m")  # a digest of its own
    project.seeders()
    project.write("db/000_own.sql", f"SELECT '{uuid.uuid4()}';")
    return project


@pytest.fixture
def seeddb(project):
    return Command(project.path)


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def started(project, *options):
    line = [sys.executable, "-m", "pytest", "--seed-db", "-p", "no:cacheprovider", "-p", "no:randomly", *options]
    return subprocess.Popen(
        line, cwd=project.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def test_four_workers_share_one_container_that_is_gone_afterwards(project, ours, engine):
    before = {each.id for each in ours()}
    project.write("test_it.py", TESTS)
    run = started(project, "-n", "4", "-v")
    seen = set()
    while run.poll() is None:
        seen |= {each.id for each in ours()} - before
        time.sleep(0.02)
    output = run.communicate()[0]
    assert run.returncode == 0, output
    assert len(seen) == 1
    assert f"PostgreSQL in a container, image {IMAGE}" in output
    assert output.count("built in") == 1
    wait_for(lambda: {each.id for each in ours()} <= before)


def test_its_port_is_open_to_this_machine_only_and_its_data_is_in_memory(project, ours):
    project.write(
        "test_it.py",
        TESTS.replace('connection.execute("INSERT', 'time.sleep(0.5); connection.execute("INSERT'),
    )
    before = {each.id for each in ours()}
    run = started(project, "-k", "0")
    try:
        wait_for(lambda: any(each.status == "running" for each in ours() if each.id not in before))
        (container,) = [each for each in ours() if each.id not in before]
        wait_for(lambda: container.reload() or container.ports.get("5432/tcp"))
        assert [each["HostIp"] for each in container.ports["5432/tcp"]] == ["127.0.0.1"]
        assert "/seeddb" in container.attrs["HostConfig"]["Tmpfs"]
    finally:
        output = run.communicate()[0]
    assert run.returncode == 0, output
    password = dict(each.partition("=")[::2] for each in container.attrs["Config"]["Env"])["POSTGRES_PASSWORD"]
    assert password not in output


def test_a_killed_run_leaves_no_container(project, ours):
    before = {each.id for each in ours()}
    project.write("test_it.py", TESTS.replace("with seeded_db", "time.sleep(60)\n        with seeded_db"))
    run = started(project, "-n", "2")
    wait_for(lambda: any(each.status == "running" for each in ours() if each.id not in before))
    time.sleep(1)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    wait_for(lambda: {each.id for each in ours()} <= before)


def test_ten_runs_at_once_share_it_and_build_once(project, ours):
    before = {each.id for each in ours()}
    project.write("test_it.py", TESTS)
    runs = [started(project) for _ in range(10)]
    seen = set()
    while any(run.poll() is None for run in runs):
        seen |= {each.id for each in ours()} - before
        time.sleep(0.05)
    outputs = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0] * 10, "\n".join(outputs)
    assert sum("built in" in output for output in outputs) == 1
    assert len(seen) == 1
    wait_for(lambda: {each.id for each in ours()} <= before)


def test_the_next_container_restores_what_this_one_built_and_a_change_builds(project):
    project.write("test_it.py", TESTS)
    assert "first build of this plan" in project.run().stdout.str()
    assert "restored from the dump of an earlier container's" in project.run().stdout.str()
    project.write("little/seeds.py", (project.path / "little/seeds.py").read_text() + "# changed")
    output = project.run().stdout.str()
    assert "restored" not in output
    assert "built in" in output


def test_a_migration_that_makes_a_role_gets_a_container_of_its_own_that_goes_with_the_run(project, ours):
    project.write("db/002_role.sql", "CREATE ROLE made_role; GRANT SELECT ON shop TO made_role;")
    test = """
        import pytest

        @pytest.mark.parametrize("number", range(2))
        def test_it(seeded_connection, number):
            seeded_connection.execute("CREATE ROLE left_role")
            seeded_connection.commit()
            seeded_connection.execute("SET ROLE made_role")
            assert seeded_connection.execute("SELECT count(*) FROM shop").fetchone() == (4,)
    """
    first = project.test(test)
    first.assert_outcomes(passed=2)
    first.stdout.fnmatch_lines(["seeddb: *has data of its own: its build makes the role made_role*"])
    wait_for(lambda: not ours())
    project.test(test).assert_outcomes(passed=2)
    wait_for(lambda: not ours())


def test_a_damaged_dump_is_built_anew(project):
    project.write("test_it.py", TESTS)
    project.run().assert_outcomes(passed=8)
    (dump,) = (project.path / "cache/pytest-seeddb/dumps").glob("*.dump")
    dump.write_bytes(dump.read_bytes()[:-100])
    output = project.run()
    output.assert_outcomes(passed=8)
    assert "restored" not in output.stdout.str()


def test_with_reuse_it_stays_until_it_is_stopped(project, seeddb, ours, monkeypatch):
    monkeypatch.setenv("SEEDDB_REUSE", "true")
    before = {each.id for each in ours()}
    project.write("test_it.py", TESTS)
    project.run().assert_outcomes(passed=8)
    stays = {each.id for each in ours()} - before
    assert len(stays) == 1
    output = project.run()
    output.assert_outcomes(passed=8)
    assert "reused" in output.stdout.str()
    assert "running" in seeddb("status").stdout
    assert "stopped" in seeddb("server", "stop").stdout
    assert {each.id for each in ours()} <= before


def test_init_scripts_run_before_anything_else(project, monkeypatch):
    project.write("roles.sql", "CREATE ROLE clerk;")
    monkeypatch.setenv("SEEDDB_INIT_SCRIPTS", "roles.sql")
    project.write("db/002_grant.sql", "GRANT SELECT ON shop TO clerk;")
    project.write("test_it.py", TESTS)
    project.run().assert_outcomes(passed=8)


def test_client_programs_that_this_machine_lacks_are_run_inside(project, seeddb, tmp_path):
    hidden = {"PATH": str(tmp_path), "SEEDDB_BINARIES": str(tmp_path)}
    own = Command(project.path, **hidden)
    code = (
        "import sys; from pytest_seeddb.servers import programs; programs.usual_places = lambda: iter(()); "
        "from pytest_seeddb.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    environment = {**os.environ, **hidden}
    for file in ("seed-db.sql", "seed-db.dump"):
        line = [sys.executable, "-c", code, "dump", "-o", file]
        done = subprocess.run(line, cwd=project.path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "COPY public.shop" in (project.path / "seed-db.sql").read_text()
    assert (project.path / "seed-db.dump").read_bytes().startswith(b"PGDMP")
    assert own.path == project.path


@pytest.mark.parametrize(
    ("variables", "texts"),
    [
        ({"DOCKER_HOST": "unix:///nowhere.sock"}, ["No container engine answers", "unix:///nowhere.sock", "embedded"]),
        ({"SEEDDB_IMAGE": "localhost/nobody:has-this"}, ["localhost/nobody:has-this is not here", "docker pull"]),
        ({"SEEDDB_IMAGE": "localhost:1/nobody"}, ["localhost:1/nobody is not here", "localhost:1"]),
        ({"SEEDDB_TMPFS": "8m"}, ["The container has no room for its data", 'tmpfs = "4g"']),
        ({"SEEDDB_INIT_SCRIPTS": "nowhere.sql"}, ["The init script nowhere.sql cannot be read"]),
        ({"SEEDDB_POSTGRES": "17"}, ["the settings require 17"]),
    ],
)
def test_what_fails_says_what_and_names_the_other_ways(seeddb, ours, monkeypatch, variables, texts):
    before = {each.id for each in ours()}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code = 2 if "SEEDDB_INIT_SCRIPTS" in variables else 1
    told = seeddb("build", code=code).stderr
    for text in texts:
        assert text in told
    if "DOCKER_HOST" not in variables:
        wait_for(lambda: {each.id for each in ours()} <= before)


def test_an_init_script_that_fails_shows_the_containers_log(project, seeddb, monkeypatch):
    project.write("wrong.sql", "SELECT nonsense;")
    monkeypatch.setenv("SEEDDB_INIT_SCRIPTS", "wrong.sql")
    told = seeddb("build", code=1).stderr
    assert "The container ended as soon as it had started" in told
    assert 'column "nonsense" does not exist' in told


def test_a_container_that_somebody_removes_while_it_starts_says_so(project, seeddb, ours, monkeypatch):
    project.write("slow.sql", "SELECT pg_sleep(60);")
    monkeypatch.setenv("SEEDDB_INIT_SCRIPTS", "slow.sql")
    before = {each.id for each in ours()}
    build = seeddb.start("build")
    wait_for(lambda: any(each.status == "running" for each in ours() if each.id not in before))
    (container,) = [each for each in ours() if each.id not in before]
    container.remove(force=True)
    told = build.communicate(timeout=30)[1]
    assert build.returncode == 1
    assert "The container went away while its server was starting" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("end", ["remove(force=True)", "kill()"])
def test_a_container_that_goes_away_during_a_run_is_named_within_two_seconds(project, ours, end):
    project.write(
        "conftest.py",
        """
        from pathlib import Path

        def pytest_runtest_logreport(report):
            if report.failed and "The container" in str(report.longrepr) and not Path("told").exists():
                Path("told").touch()

        def pytest_unconfigure():
            Path("over").touch()
        """,
    )
    result = project.test(
        f"""
        from pathlib import Path
        from pytest_seeddb.servers.container import LABEL
        from pytest_seeddb.servers.engine import connect

        def test_1(seeded_session):
            container, = connect("the test").client.containers.list(filters={{"label": LABEL}})
            container.{end}
            Path("ended").touch()

        def test_2(seeded_session):
            pass

        def test_3(seeded_session):
            pass
        """,
    )
    result.assert_outcomes(passed=1, errors=2)
    ended, told, over = ((project.path / name).stat().st_mtime for name in ("ended", "told", "over"))
    assert told - ended < 2
    assert over - told < 2, "nor is the rest of the run silent"
    reason = "was removed" if "remove" in end else "has ended"
    result.stdout.fnmatch_lines([f"*The container * {reason} in the middle of the run, and its server with it*"])
    assert not ours()


def test_a_socket_that_is_closed_to_this_user_says_how_to_let_him_in(project, tmp_path):
    if os.geteuid():
        pytest.fail("this test plays another user, which only root can")
    closed = tmp_path / "docker.sock"
    code = f"import socket; s = socket.socket(socket.AF_UNIX); s.bind({str(closed)!r})"
    subprocess.run([sys.executable, "-c", code], check=True)
    closed.chmod(stat.S_IRUSR | stat.S_IWUSR)
    for directory in (tmp_path, *tmp_path.parents):
        if str(directory).startswith("/tmp/"):
            directory.chmod(0o755)
    text = (
        "import os, docker, testcontainers.core.docker_client\n"
        "from pytest_seeddb.servers.engine import connect\n"
        "os.setegid(65534); os.seteuid(65534)\n"
        "try: connect('the test')\nexcept Exception as error: print(error)"
    )
    environment = {**os.environ, "DOCKER_HOST": f"unix://{closed}", "HOME": "/nonexistent"}
    done = subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, text=True, check=True)
    assert "closed to this user" in done.stdout
    assert "usermod -aG docker" in done.stdout


def test_where_nothing_is_installed_auto_takes_a_container(seeddb, monkeypatch, tmp_path):
    monkeypatch.setenv("SEEDDB_SERVER", "auto")
    monkeypatch.setenv("SEEDDB_BINARIES", str(tmp_path))
    assert "(container, image" in json.loads(seeddb("explain", "--json").stdout)["server"]
