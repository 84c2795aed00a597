"""Promise 5: two runs, or ten, at once neither disturb nor duplicate each other's work."""

from __future__ import annotations

import os
import random
import shutil
import textwrap
import threading
import time
import uuid
from collections import Counter
from contextlib import contextmanager

import pytest
from attacks import MIGRATIONS, PASSING, times
from crowds import ONCE, Checkout, Runs, Visitors
from processes import AS_STRANGER, CAN_BE_STRANGER, STRANGER, eventually, private_cache, processes_of

from pytest_seeddb.servers.binaries import choose
from pytest_seeddb.servers.places import cache_place, server_account
from pytest_seeddb.settings.settings import Settings

TEN = 10
NEXT = {"004_note": "ALTER TABLE shop ADD note text DEFAULT 'new';"}
NOTE = """

    def test_has_the_note(seeded_connection):
        assert seeded_connection.execute("SELECT DISTINCT note FROM shop").fetchall() == [("new",)]
"""
NO_NOTE = """

    def test_has_no_note(seeded_connection):
        columns = "SELECT attname FROM pg_attribute WHERE attrelid = 'shop'::regclass AND attnum > 0"
        assert seeded_connection.execute(columns).fetchall() == [("id",), ("name",)]
"""


@contextmanager
def checkout(within, **environment):
    with private_cache(within=within) as place:
        made = Checkout(place, **environment)
        yield made
        made.is_quiet()


@pytest.fixture
def checkout_here(cache_home):
    with checkout(cache_home) as made:
        yield made


@pytest.fixture
def choice(record_property):
    seed = uuid.uuid4().int
    record_property("seed", seed)
    print(f"random seed {seed}")
    return random.Random(seed)


# -- the same plan -------------------------------------------------------------------------------


def test_ten_runs_with_the_same_plan_build_it_once(checkout_here, choice, tried):
    site = checkout_here
    for number in range(times(2)):
        site.plan(rows=40 + number)
        gap = choice.choice([0, 0.1, 0.3]) if number else 0
        options = [("-n", "2")] * 2 + [()] * (TEN - 2)
        choice.shuffle(options)
        with Runs() as runs:
            for each in options:
                runs.processes.append(site.start(*each))
                time.sleep(gap)
            runs.pass_all()
        new = {} if number == 0 else dict.fromkeys(MIGRATIONS, 0)
        assert site.ran() == +Counter({**ONCE, **new})
        site.holds_templates_only()
        tried("ten runs with one plan at once, cold" if number == 0 else "ten runs at once, another seed")


def test_workers_of_two_runs_that_start_at_once_share_their_one_build_with_commands(checkout_here, tried):
    """`seeddb build` is one more who asks; whoever comes first builds."""
    site = checkout_here
    commands = [threading.Thread(target=site.command, args=("build",)) for _ in range(2)]
    with Runs(site.start("-n", "2"), site.start()) as runs:
        [each.start() for each in commands]
        [each.join() for each in commands]
        runs.pass_all()
    assert site.ran() == Counter(ONCE)
    site.holds_templates_only()
    tried("two runs and two commands at once")


# -- different plans -----------------------------------------------------------------------------


def test_ten_runs_with_different_plans_share_what_they_have_in_common_and_nothing_else(checkout_here, tried):
    site = checkout_here
    checkouts = [site.beside(f"checkout-{number}") for number in range(TEN)]
    for number, each in enumerate(checkouts):
        each.plan(rows=50 + number)
    with Runs(*(each.start() for each in checkouts)) as runs:
        runs.pass_all()
    seeds = {name: TEN * count for name, count in ONCE.items() if name not in MIGRATIONS}
    assert site.ran() == Counter({**dict.fromkeys(MIGRATIONS, 1), **seeds})
    site.holds_templates_only()
    tried("ten runs with plans of their own at once")


def test_two_checkouts_with_different_migrations_never_see_each_others(checkout_here, choice, tried):
    """One server, one project name, two branches: neither takes the other's template or takes it away."""
    main = checkout_here
    branch = main.beside("branch")
    branch.plan(**NEXT)
    for each, test in ((main, NO_NOTE), (branch, NOTE)):
        path = each.project / "test_it.py"
        path.write_text(path.read_text() + textwrap.dedent(test))
    with Runs(main.start(), branch.start()) as runs:
        runs.pass_all(PASSING + 1)
    ran = main.ran()
    assert set(ran) == {*ONCE, *NEXT}
    first = main.templates()
    for number in range(times(12, 2)):
        turn = choice.sample([main, branch], 2)
        apart = number % 2
        with Runs(turn[0].start()) as runs:
            if apart:
                runs.pass_all(PASSING + 1)
            with Runs(turn[1].start()) as others:
                others.pass_all(PASSING + 1)
            if not apart:
                runs.pass_all(PASSING + 1)
        tried("alternating runs of two branches", 2)
    assert main.ran() == Counter(), "both were built: nothing is built again"
    assert main.templates() == first


# -- different servers and accounts --------------------------------------------------------------


def test_servers_of_two_versions_run_side_by_side_for_two_projects(checkout_here, tried):
    """Half of the runs want the wheel's PostgreSQL 18, half take the one that is installed."""
    site = checkout_here
    newest = site.beside("newest")
    newest.table('postgres = "18"')
    majors = {choose(Settings(root=site.project)).major, 18}
    rounds = times(2)
    for _ in range(rounds):
        with Runs(*(each.start() for each in (site, newest) * (TEN // 2))) as runs:
            runs.pass_all()
    found = sorted(each.name.partition(".")[0] for each in (site.cache / "pytest-seeddb/servers").iterdir())
    assert found == sorted(map(str, majors))
    assert site.ran() == Counter({name: len(majors) * count for name, count in ONCE.items()})
    for each in (site, newest):
        each.holds_templates_only()
    tried(f"runs at once on servers of version {' and '.join(found)}", rounds * TEN)


ACCOUNTS = ["ours", "another"] if CAN_BE_STRANGER else ["ours"]  # root alone can be somebody else


def of_account(site, name):
    """The same directory for another account, with a cache of its own: what it runs has its own server."""
    other = site.of(AS_STRANGER if name == "another" else (), f"cache-of-{name}")
    if name == "another":
        for each in (other.cache, other.temporary):
            os.chown(each, STRANGER, STRANGER)
    return other


def owners(directory):
    return {each.lstat().st_uid for each in (directory, *directory.rglob("*")) if not each.is_symlink()}


def test_root_and_another_account_test_one_project_at_once_each_on_a_server_of_its_own(checkout_here, tried):
    site = checkout_here
    sites = [of_account(site, name) for name in ACCOUNTS]
    rounds = times(2)
    for _ in range(rounds):
        with Runs(*(each.start() for each in sites * 3)) as runs:
            runs.pass_all()
    assert site.ran() == Counter({name: len(sites) * count for name, count in ONCE.items()})
    for each in sites:
        each.holds_templates_only()
    if CAN_BE_STRANGER:
        roots, anothers = (owners(each.cache) for each in sites)
        assert anothers == {STRANGER}
        assert STRANGER not in roots
    tried(f"runs of {len(sites)} accounts at once", rounds * 3 * len(sites))


@pytest.fixture
def roots_own(checkout_here, monkeypatch):
    """Where root keeps its server when the cache directory of its environment is another account's."""
    site = checkout_here
    if not CAN_BE_STRANGER:
        yield site.cache
        return
    monkeypatch.setenv("XDG_CACHE_HOME", str(site.cache))
    for each in (site.cache, site.temporary):
        os.chown(each, STRANGER, STRANGER)
    place = cache_place(server_account())
    yield place
    eventually(lambda: not processes_of(place), 20)
    shutil.rmtree(place)


@pytest.mark.parametrize("first", ACCOUNTS)
def test_root_with_a_users_environment_leaves_his_cache_alone(checkout_here, roots_own, tried, first):
    """As with `sudo -E`: whoever comes first, neither keeps the other from working."""
    root, user = checkout_here, checkout_here.of(AS_STRANGER if CAN_BE_STRANGER else ())
    for each in [root, user] if first == "ours" else [user, root]:
        each.passes()
    with Runs(*(each.start() for each in [root, user] * 2)) as runs:
        runs.pass_all()
    if CAN_BE_STRANGER:
        assert owners(user.cache) == {STRANGER}
        assert STRANGER not in owners(roots_own)
    tried("runs of root with a user's environment, and of that user", 6)


# -- the moment of shut-down ---------------------------------------------------------------------


@pytest.fixture
def kept(cache_home):
    """A cache whose server has a database to find again, and stands still."""
    with private_cache(within=cache_home) as place:
        with Visitors(place) as visitors:
            visitors.make_marker()
        eventually(lambda: not processes_of(place), 20)
        yield place


def shut_down(cache, visitors):
    """Seconds from the last visitor's leaving until nothing of the server runs."""
    visitors.send(0, 0)
    (came,) = visitors.came(1)
    visitors.all_left()
    eventually(lambda: not list(cache.glob("pytest-seeddb/servers/*/data/postmaster.pid")), 30)
    return time.monotonic() - came["leaving"]


def test_whoever_comes_while_the_server_shuts_down_has_a_server(kept, choice, tried):
    """The last one leaves, and others come within that moment: before, while or just after it stops."""
    rounds, joined, started = times(500, 50), 0, 0
    with Visitors(kept) as visitors:
        longest = 1.5 * sorted(shut_down(kept, visitors) for _ in range(3))[1]
        leaving, before = time.monotonic(), None
        for _ in range(rounds):
            comers = choice.choice([1, 1, 1, 3])
            for _ in range(comers):
                # Half of them as the last one leaves, when the guard wakes; half until all is over.
                moment = choice.uniform(*choice.choice([(-0.01, 0.03), (0, longest)]))
                visitors.send(leaving + moment, choice.uniform(0.05, 0.1))
            came = visitors.came(comers)
            servers = {each["server"] for each in came}
            leaving = max(each["leaving"] for each in came)
            joined += before in servers
            started += bool(servers - {before})
            before = came[-1]["server"]
        visitors.all_left()
    assert min(joined, started) > rounds / 50, (joined, started)
    tried("a server that was stopping, and somebody came", rounds)
    tried("of these, still met the old server", joined)
    tried("of these, met a new one", started)


WAITS = """
    import os
    import time
    from pathlib import Path
    import pytest
    from pytest_seeddb.servers import embedded
    from pytest_seeddb.servers.opening import open_server

    @pytest.fixture(scope="session")
    def seeddb_server(seeddb_settings):
        Path(os.environ["READY"]).touch()
        while not Path(os.environ["GO"]).exists():
            time.sleep(0.001)
        with open_server(seeddb_settings) as server:
            yield server
            Path(os.environ["LEAVES"]).touch()
            time.sleep(0.1)  # whoever is told to go now asks programs for their versions first
"""


def test_a_run_that_begins_in_the_second_in_which_another_ends_passes(checkout_here, choice, tried):
    """It has begun before and waits, and asks for the server in the moment of its end."""
    site = checkout_here
    site.write("conftest.py", WAITS)
    signs = site.place / "signs"
    signs.mkdir()

    def begun(number):
        names = {each: str(signs / f"{each}-{number}") for each in ("READY", "GO", "LEAVES")}
        return site.start(env={**site.environ, **names})

    def sign(name, number):
        return signs / f"{name}-{number}"

    rounds = times(20, 3)
    with Runs(begun(0), begun(1)) as runs:
        eventually(sign("READY", 1).exists, 60)
        sign("GO", 0).touch()
        for number in range(1, rounds + 1):
            if number < rounds:
                runs.processes.append(begun(number + 1))
            eventually(sign("READY", number).exists, 60)
            eventually(sign("LEAVES", number - 1).exists, 60)
            time.sleep(choice.uniform(0, 0.2))
            sign("GO", number).touch()
        runs.pass_all()
    assert site.ran() == Counter(ONCE)
    site.holds_templates_only()
    tried("a run of pytest that began as another's server stopped", rounds)
