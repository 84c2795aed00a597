"""Settling with an adversary: another client commits before any statement, and the next test sees none of it."""

from __future__ import annotations

import contextlib
import random
import secrets
import threading
from itertools import count

import psycopg
import pytest
from attacks import times
from handmade import Statements
from settling import assert_same, passing_bench, run, state

from pytest_seeddb.clones.shared import writing

SCHEMA = [
    "CREATE SEQUENCE free",
    "CREATE TABLE t (id serial PRIMARY KEY, v int)",
    "INSERT INTO t (v) SELECT n FROM generate_series(1, 20) n",
    "CREATE TABLE u (id serial PRIMARY KEY, long text)",
    "ALTER TABLE u ALTER long SET STORAGE EXTERNAL",
    "INSERT INTO u (long) SELECT repeat('x', 5000) FROM generate_series(1, 3)",
]
HARM = {
    "insert": "INSERT INTO t (v) VALUES (666)",
    "update": "UPDATE t SET v = 666 WHERE id = 5",
    "delete": "DELETE FROM t WHERE id = 6",
    "long value": "INSERT INTO u (long) VALUES (repeat('y', 9000))",
    "nextval": "SELECT nextval('free')",
    "schema": "CREATE TABLE IF NOT EXISTS stranger (v int)",
    "comment": "COMMENT ON TABLE t IS 'a stranger was here'",
}
WORK = {
    "keep": "SELECT * FROM t",
    "rewind inserts": "INSERT INTO t (v) VALUES (1), (2)",
    "rewind updates": "UPDATE t SET v = v + 1",
    "rewind updates, rows unread": "UPDATE t SET v = v + 2",
    "rewind sequences": "SELECT nextval('t_id_seq')",
    "discard": "CREATE TABLE own (v int)",
}


class Adversary:
    """Somebody else, who knows the name of every clone and commits in it before the chosen ones of our statements."""

    def __init__(self, worker, harm, *, stays=False):
        self.worker = worker
        self.harm = harm
        self.stays = stays
        self.calls = 0
        self.done = 0
        self.when = lambda call: False
        self._left = []
        self._active = threading.local()
        self._counting = threading.Lock()

    def strike(self, name):
        address = self.worker.admin.address.with_database(name)
        with contextlib.suppress(psycopg.Error):
            connection = psycopg.connect(writing(address).conninfo, autocommit=True)
            self._left.append(connection)
            connection.execute("SET lock_timeout = '50ms'")
            for statement in self.harm():
                with contextlib.suppress(psycopg.Error):
                    connection.execute(statement)
                    self.done += 1
            if not self.stays:
                connection.close()

    @contextlib.contextmanager
    def at_work(self, name):
        """Every statement of our own connections is preceded by the question whether to strike."""
        cursor = psycopg.Connection.cursor  # `execute` makes one, too

        def preceded(connection, *arguments, **named):
            # Another thread's statements may come when the next test has its clone already: only its own clone is hit.
            is_main = threading.current_thread() is threading.main_thread()
            clone = connection.info.dbname if connection.info.dbname.startswith("seeddb_c") else ""
            if (is_main or clone) and not getattr(self._active, "is_set", False):
                with self._counting:
                    self.calls += 1
                    call = self.calls
                self._active.is_set = True
                try:
                    if self.when(call):
                        for target in {clone} if clone else {name(), *self.worker.clones._living}:
                            self.strike(target)
                finally:
                    self._active.is_set = False
            return cursor(connection, *arguments, **named)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(psycopg.Connection, "cursor", preceded)
            yield
        for connection in self._left:
            connection.close()


@pytest.fixture(scope="module")
def bench(embedded_server, tmp_path_factory):
    from pytest_seeddb.plan.plan import Plan

    own = Statements(secrets.token_hex(4), [f"SELECT '{secrets.token_hex(4)}'"], layered=False)
    stages = (own.stage(), Statements("schema", SCHEMA, layered=False).stage())
    plan = Plan("adversary", "default", tmp_path_factory.mktemp("plan"), stages)
    with passing_bench(embedded_server, plan) as bench:
        yield bench


def from_test_to_test(bench, adversary, work, when):
    """One test, and what the next one finds; how many statements there were in between."""
    leased = bench.pool.take(bench.template)
    if work == [WORK["rewind updates, rows unread"]]:
        leased.observer.shape._rows.clear()
    run(leased.clone.address, [(0, statement) for statement in work])
    adversary.calls, adversary.when = 0, when
    with adversary.at_work(lambda: leased.clone.name):
        bench.pool.give_back(leased)
        calls = adversary.calls
        following = bench.pool.take(bench.template)
        calls = max(calls, adversary.calls)
    assert_same(state(following.clone.address), bench.seeded, f"after {work}, {adversary.calls} statements")
    bench.pool.give_back(following)
    return calls


@pytest.mark.parametrize("stays", [False, True], ids=["goes at once", "stays"])
@pytest.mark.parametrize("work", WORK)
@pytest.mark.slow
def test_a_commit_before_any_statement_of_settling_is_not_seen_by_the_next_test(bench, work, stays):
    for _ in range(2):  # the first rewind of a table learns its rows
        from_test_to_test(bench, Adversary(bench.worker, list), [WORK[work]], lambda call: False)
    kinds = list(HARM.values())
    adversary = Adversary(bench.worker, lambda: [kinds[adversary.calls % len(kinds)]], stays=stays)
    for at in count(1):
        calls = from_test_to_test(bench, adversary, [WORK[work]], lambda call, at=at: call == at)
        if at > calls:
            break
    assert adversary.done >= at - 1 > 1


def strikes(adversary, from_test_to_test):
    """Have the adversary strike before the first statement, the second, ...; gives how many there were."""
    kinds = list(HARM.values())
    adversary.harm = lambda: [kinds[adversary.calls % len(kinds)]]
    for at in count(1):
        if at > from_test_to_test(lambda call, at=at: call == at):
            return at - 1
    return 0


ROLLED_BACK = [*list(WORK.values())[1:], "TRUNCATE u"]


@pytest.mark.slow
@pytest.mark.parametrize("given_away", [False, True], ids=["", "given away"])
@pytest.mark.parametrize("isolation", ["rollback", "readonly"])
def test_a_commit_before_any_statement_is_not_seen_by_the_next_test_of_a_shared_clone(bench, isolation, given_away):
    shared, rolled_back = bench.worker.shared_clone(bench.template), isolation == "rollback"
    seeded = state(shared.take().address)
    shared.settle(rolled_back=False)
    adversary = Adversary(bench.worker, list)

    def from_test_to_test(when):
        clone = shared.take()
        with psycopg.connect(writing(clone.address).conninfo) as connection:
            for statement in ROLLED_BACK if rolled_back else ["SELECT * FROM t"]:
                connection.execute(statement)
            connection.rollback()
        adversary.calls, adversary.when = 0, when
        with adversary.at_work(lambda: clone.name):
            shared.settle(rolled_back=rolled_back, given_away=given_away)
            following = shared.take()
            calls = adversary.calls
        assert_same(state(following.address), seeded, f"after {calls} statements")
        shared.settle(rolled_back=False)
        return calls

    assert 1 < strikes(adversary, from_test_to_test) <= adversary.done
    shared.give_up()


@pytest.mark.slow
def test_a_commit_before_any_statement_is_not_seen_by_the_next_test_that_django_rolls_back(bench):
    adversary = Adversary(bench.worker, list)

    def from_test_to_test(when):
        leased = bench.pool.take(bench.template)
        adversary.calls, adversary.when = 0, when
        with psycopg.connect(leased.clone.address.conninfo) as connection, adversary.at_work(lambda: leased.clone.name):
            backend = connection.info.backend_pid
            is_watched = leased.observer.watch(backend)
            for statement in ROLLED_BACK if adversary.calls else []:
                connection.execute(statement)
            connection.rollback()
            connection.execute("SELECT pg_stat_force_next_flush()")
            connection.rollback()
            is_seeded = is_watched and bench.pool.is_as_watched(leased, backend)
            calls, adversary.when = adversary.calls, lambda call: False
            if is_seeded:
                assert_same(state(leased.clone.address), bench.seeded, f"after {calls} statements")
        bench.pool.give_back(leased)
        return calls

    assert strikes(adversary, from_test_to_test) > 5
    assert adversary.done > 5


@pytest.mark.long
def test_commits_at_random_moments_of_a_thousand_random_workloads_are_never_seen(bench):
    draw = random.Random(13)
    statements = [*list(WORK.values())[:-1], *list(HARM.values())[:-2], "DELETE FROM u", "UPDATE u SET long = 'short'"]
    adversary = Adversary(bench.worker, lambda: draw.sample([*HARM.values()], draw.randint(1, 3)))
    for _ in range(times(1000)):
        adversary.stays = draw.random() < 0.2
        work, chance = draw.choices(statements, k=draw.randint(1, 4)), draw.choice((0.01, 0.05, 0.2))
        from_test_to_test(bench, adversary, work, lambda _call, chance=chance: draw.random() < chance)
    verdicts = bench.pool.verdicts
    print(dict(verdicts), adversary.done)
    assert verdicts["rewind"] > times(50)
    assert adversary.done > times(500)
