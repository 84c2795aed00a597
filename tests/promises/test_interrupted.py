"""Runs that are interrupted, end themselves or hang: they end, the next one passes, and nothing is left of them."""

from __future__ import annotations

import os
import random
import re
import signal
import time
import uuid
from contextlib import suppress

import killing
import pytest
from attacks import times

from pytest_seeddb.servers.naming import parse_name

INTERRUPTED = 2  # pytest's exit codes
FAILED = 1


@pytest.fixture(scope="module")
def site():
    with killing.mortal_site() as site:
        assert site.peace
        yield site


@pytest.fixture
def badly(site):
    """Writes a module of tests that end badly; it is gone when the next run comes."""
    path = site.project / "test_badly.py"

    def write(text):
        site.write(path.name, text)
        return path.name

    yield write
    path.unlink(missing_ok=True)


def is_well(site, *arguments):
    for extra in ("test_badly.py", "conftest.py"):
        (site.project / extra).unlink(missing_ok=True)
    site.passes(*arguments)
    assert site.standing() == site.peace


def left_over(site):
    """Clones and builds that are on the server although nothing runs."""
    site.is_quiet()
    return [name for name in site.databases("seeddb%") if (of := parse_name(name)) and of.kind in {"clone", "build"}]


def interrupt(run):
    """Ctrl-C in the terminal: it goes to the whole group."""
    with suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGINT)


# -- Ctrl-C --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("presses", "arguments", "full"), [(1, [], 20), (2, [], 20), (1, ["-n", "2"], 4), (2, ["-n", "2"], 4)]
)
def test_ctrl_c_at_any_moment(site, tried, presses, arguments, full):
    seed = uuid.uuid4().int
    choice = random.Random(seed)
    started = time.monotonic()
    site.passes(*arguments)
    span = time.monotonic() - started
    for number in range(times(full)):
        if choice.random() < 0.3:
            site.seeddb("prune", "--all")
        run = site.begin(*arguments)
        moments = [choice.uniform(0.02, span), *(choice.uniform(0.0, 0.1) for _ in range(presses - 1))]
        try:
            for moment in moments:
                time.sleep(moment)
                interrupt(run)
            run.ended(60)
            is_well(site)
        except BaseException as error:
            error.add_note(f"seed {seed}, round {number}, at {moments} of {span:.3f} s\n{run.text}")
            raise
    tried(f"Ctrl-C, {presses} times, {' '.join(arguments)}", times(full))


HANGING = """
    import pytest

    def test_hangs(seeded_connection):
        seeded_connection.execute("CREATE TABLE begun (n int)")
        {commits}
        seeded_connection.execute("SELECT pg_sleep(600)")

    def test_hangs_in_a_lock(seeded_db):
        with seeded_db.connect() as first, seeded_db.connect() as second:
            first.execute("LOCK TABLE item")
            second.execute("SELECT * FROM item")
"""
ONE_MORE = """
    def test_is_well(seeded_connection):
        seeded_connection.execute("TABLE shop")
"""
SLEEPS = {"a query": ("test_hangs", r"pg_sleep\(600\)"), "a lock": ("test_hangs_in_a_lock", r"^SELECT \* FROM item")}


@pytest.mark.parametrize("what", SLEEPS)
def test_ctrl_c_while_a_test_hangs_in(site, badly, tried, what):
    name, query = SLEEPS[what]
    module = badly(HANGING.format(commits="seeded_connection.commit()"))
    run = site.begin(f"{module}::{name}")
    assert site.caught(query, run), run.text
    interrupt(run)
    assert run.ended(20) == INTERRUPTED, run.text
    assert left_over(site) == [], "one Ctrl-C is an orderly end"
    is_well(site)
    tried(f"Ctrl-C in {what}", 1)


@pytest.mark.parametrize("what", SLEEPS)
def test_impatient_ctrl_cs_while_a_test_hangs_in(site, badly, tried, what):
    name, query = SLEEPS[what]
    module = badly(HANGING.format(commits=""))
    choice = random.Random(uuid.uuid4().int)
    for _ in range(times(5)):
        badly(HANGING.format(commits=""))
        run = site.begin(f"{module}::{name}")
        assert site.caught(query, run), run.text
        for _ in range(5):
            interrupt(run)
            time.sleep(choice.uniform(0, 0.03))
        run.ended(20)
        is_well(site)
    tried(f"five times Ctrl-C in {what}", times(5))


def test_a_signal_that_nobody_handles_while_a_test_hangs(site, badly, tried):
    for number in random.sample([signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT], times(3)):
        module = badly(HANGING.format(commits=""))
        run = site.begin(f"{module}::test_hangs")
        assert site.caught(r"pg_sleep\(600\)", run), run.text
        os.kill(run.pid, number)
        assert run.ended(20) == -number, run.text
        is_well(site)
        tried(number.name, 1)


# -- tests that are timed out --------------------------------------------------------------------

BY_ALARM = """
    import signal
    import pytest

    @pytest.fixture(autouse=True)
    def timed():
        def over(*_):
            pytest.fail("timed out")
        signal.signal(signal.SIGALRM, over)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        yield
        signal.setitimer(signal.ITIMER_REAL, 0)
"""
BY_THREAD = """
    import os
    import threading
    import pytest

    @pytest.fixture(autouse=True)
    def timed():
        timer = threading.Timer(0.3, os._exit, [1])
        timer.start()
        yield
        timer.cancel()
"""


def test_a_test_that_is_timed_out_by_a_signal_fails_alone(site, badly, tried):
    """The way of pytest-timeout where there are signals."""
    site.write("conftest.py", BY_ALARM)
    badly(
        HANGING.format(commits="")
        + "\n    def test_is_well(seeded_connection):\n        seeded_connection.execute('TABLE shop')\n"
    )
    run = site.begin("test_badly.py", "--seed-db-keep=none")
    assert run.ended(30) == FAILED, run.text
    assert "2 failed, 1 passed" in run.text
    assert left_over(site) == []
    is_well(site)
    tried("timed out by a signal", 2)


@pytest.mark.parametrize("arguments", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_a_test_whose_process_is_ended_by_a_timer(site, badly, tried, arguments):
    """The way of pytest-timeout where there are none, and of faulthandler."""
    site.write("conftest.py", BY_THREAD)
    module = badly(HANGING.format(commits=""))
    run = site.begin(f"{module}::test_hangs", *arguments)
    assert run.ended(60) == FAILED, run.text
    is_well(site)
    tried("ended by a timer", 1)


# -- processes that end themselves ---------------------------------------------------------------

ENDS = {
    "in a test": """
        import os
        def test_ends(seeded_connection):
            seeded_connection.execute("DELETE FROM item")
            os._exit(7)
    """,
    "in a fixture's set-up": """
        import os, pytest
        @pytest.fixture
        def ends(seeded_db):
            os._exit(7)
        def test_ends(ends):
            pass
    """,
    "in a fixture's tear-down": """
        import os, pytest
        @pytest.fixture
        def ends(seeded_db):
            yield
            os._exit(7)
        def test_ends(ends):
            pass
    """,
    "in a shared clone": """
        import os, pytest
        @pytest.mark.seeded(isolation="rollback")
        def test_ends(seeded_session):
            os._exit(7)
    """,
    "by a crash": """
        import os
        def test_ends(seeded_db):
            os.abort()
    """,
    "in the middle of a build": """
        import os, pytest
        import attacked.seeds
        attacked.seeds.text = lambda _: os._exit(7)
        @pytest.mark.seeded(items=3)
        def test_ends(seeded_db):
            pass
    """,
}


def ends_itself(site, badly, where, *arguments):
    run = site.begin(badly(ENDS[where]), *arguments)
    code = run.ended(60)
    assert code in ({FAILED} if arguments else {7, -signal.SIGABRT}), run.text
    is_well(site)


def test_a_process_that_ends_itself(site, badly, tried):
    for where in random.sample(sorted(ENDS), times(len(ENDS), least=2)):
        ends_itself(site, badly, where)
        tried(f"a process that ends itself {where}", 1)


def test_xdist_workers_that_end_themselves(site, badly, tried):
    chosen = random.sample(sorted(ENDS), times(len(ENDS)))
    for where in chosen:
        ends_itself(site, badly, where, "-n", "2")
    tried("a worker that ends itself", len(chosen))


def test_pytest_exit_in_a_test_is_an_orderly_end(site, badly, tried):
    module = badly("import pytest\ndef test_ends(seeded_connection):\n    pytest.exit('enough')\n")
    run = site.begin(module)
    assert run.ended(20) == INTERRUPTED, run.text
    assert left_over(site) == []
    is_well(site)
    tried("pytest.exit", 1)


# -- runs that end early -------------------------------------------------------------------------

FAILING = """
    import pytest

    @pytest.mark.parametrize("number", range(20))
    def test_fails(seeded_connection, number):
        seeded_connection.execute("DELETE FROM item")
        seeded_connection.commit()
        assert number % 3
"""


def test_a_run_that_ends_at_a_failure(site, badly, tried):
    for arguments in random.sample([["--maxfail=2"], ["-x"], ["--maxfail=2", "-n", "2"]], times(3)):
        run = site.begin(badly(FAILING), "--seed-db-keep=none", *arguments)
        assert run.ended(60) in {FAILED, INTERRUPTED}, run.text
        assert re.search(r"stopping after|\d+ failed", run.text)
        assert left_over(site) == [], run.text
        is_well(site)
        tried(f"a run that ends early, {' '.join(arguments)}", 1)


def test_maxfail_keeps_the_databases_of_failed_tests_and_nothing_else(site, badly, tried):
    module = badly(FAILING)
    run = site.begin(module, "--maxfail=2")
    assert run.ended(60) == FAILED, run.text
    assert left_over(site) == []
    kept = site.databases("seeddb\\_k%")
    assert len(kept) == 2
    site.seeddb("prune", "--kept")
    is_well(site)
    tried("a run that ends early, its databases kept", 1)
