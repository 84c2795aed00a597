"""The ways to get a seeded database for a test: the floor, this project's, and its peers'."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psycopg

from comparison import peers
from pytest_seeddb import plan_of
from pytest_seeddb.clones.pool import CloneOptions
from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.servers.address import Address
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.settings.settings import Found, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from comparison.sizes import Size
    from pytest_seeddb import Plan, Server, Template

FLOOR: Final = "floor"
OURS: Final = "auto"
URL_READ: Final = "auto, URL read"
"""A test that reads its database's URL: its clone gets another name before another test has it."""
CLONING: Final = "reset=clone"
BARE: Final = "one clone, one drop"
READ: Final = "read"
INSERT: Final = "insert into 3 tables"
SCHEMA: Final = "change the schema"
TESTS: Final = {
    READ: ["SELECT count(*) FROM t1"],
    INSERT: [f"INSERT INTO t{n} (name) VALUES ('new')" for n in (1, 2, 3)],
    "update, 300 rows": ["UPDATE t4 SET name = 'changed' WHERE id = 7"],
    "update, big table": ["UPDATE big SET name = 'changed' WHERE id = 7"],
    SCHEMA: ["CREATE TABLE extra (v int)"],
}
"""What each kind of test does."""
USUAL: Final = tuple(TESTS)[:3]
"""What most tests of a suite are like."""

Giver = Callable[[], AbstractContextManager[Address]]


@dataclass(frozen=True)
class Way:
    """One way to get a seeded database.

    Attributes:
        give: Its database for one test.
        without: The tests that it cannot do.
        finish: Waits for what it does beside the tests.
        rolled_back: Whether its tests write through fixtures, in one transaction.
    """

    give: Giver
    without: tuple[str, ...] = ()
    finish: Callable[[], object] = lambda: None
    rolled_back: bool = False

    def work(self, address: Address, statements: list[str]) -> None:
        """One connection: what the test itself does."""
        options = f"{address.params.get('options', '')} -c default_transaction_read_only=off"
        more = {"options": options} if self.rolled_back else {}
        connection = psycopg.connect(address.conninfo, autocommit=not self.rolled_back, **more)
        for statement in statements:
            connection.execute(statement)  # type: ignore[arg-type]  # ours
        connection.close()


class Bench:
    """One process's part in the comparison: a server, a template on it, and workers of its own."""

    def __init__(self, server: Server, plan: Plan, size: Size, stack: ExitStack) -> None:
        self.server = server
        self.size = size
        self._plan = plan
        self._stack = stack
        self._workers: dict[str, Worker] = {}

    def worker(self, reset: str) -> Worker:
        """A worker that settles so; made when it is first asked for."""
        if reset not in self._workers:
            worker = self._stack.enter_context(Worker(self.server, options=CloneOptions(reset)))
            worker.template(self._plan)
            self._workers[reset] = worker
        return self._workers[reset]

    @property
    def template(self) -> Template:
        return self.worker("auto").template(self._plan)

    def scratch(self) -> Address:
        """A database in the seeded state that nobody cleans up."""
        return self.worker("auto").clones.make(self.template).address


@contextmanager
def open_bench(place: Path, url: str, size: Size) -> Iterator[Bench]:
    """A bench on the project's template, built if need be. What the bench made is dropped at the end."""
    settings = load_settings(place, options={"server": Found(url, "--server")})
    with ExitStack() as stack:
        yield Bench(stack.enter_context(open_server(settings)), plan_of(settings), size, stack)


# -- the ways -------------------------------------------------------------------------------------


def floor(bench: Bench) -> Way:
    address = bench.scratch()
    return Way(lambda: contextlib.nullcontext(address))


def isolated(isolation: str, reset: str = "auto", *, url_read: bool = False) -> Callable[[Bench], Way]:
    """This project's: as its fixtures and engines give it, or as a test has it that reads the URL."""

    def way(bench: Bench) -> Way:
        worker, template = bench.worker(reset), bench.template
        without = tuple(set(TESTS) - {READ}) if isolation == "readonly" else ()
        give = lambda: _given(worker, template, isolation, url_read=url_read)  # noqa: E731 - it needs these
        return Way(give, without, lambda: _idle(worker), rolled_back=isolation == "rollback")

    return way


@contextmanager
def _given(worker: Worker, template: Template, isolation: str, *, url_read: bool) -> Iterator[Address]:
    with worker.database(template, isolation) as database:
        yield database.address if url_read else database.own_address


def _idle(worker: Worker) -> None:
    """Wait for the drops and the spares that are still to be made."""
    done = threading.Event()
    worker._disposal.do(lambda _admin: done.set())  # noqa: SLF001 - tests never wait for it, so there is no other way
    done.wait()


def bare_clone(bench: Bench) -> Way:
    """The least that a new database costs here: the cheaper strategy, no waits in steps of 100 ms."""
    worker, template = bench.worker("clone"), bench.template

    @contextmanager
    def give() -> Iterator[Address]:
        clone = worker.clones.make(template)
        yield clone.address
        worker.admin.drop(clone.name)

    return Way(give)


def pgtestdb(bench: Bench) -> Way:
    return Way(lambda: peers.pgtestdb(bench.server.address, bench.template.name))


def pytest_postgresql(bench: Bench) -> Way:
    from pytest_postgresql.janitor import DatabaseJanitor

    return Way(lambda: peers.janitor(DatabaseJanitor, bench.server.address, bench.template.name))


def truncate(bench: Bench) -> Way:
    address = bench.scratch()
    rows = peers.rows_of(address, bench.size.table_names)
    return Way(lambda: peers.truncated(address, rows))


def flush(bench: Bench) -> Way:
    address = bench.scratch()
    return Way(lambda: peers.flushed(address, bench.size.table_names), without=(SCHEMA,))


WAYS: Final[dict[str, Callable[[Bench], Way]]] = {
    FLOOR: floor,
    OURS: isolated("clone"),
    URL_READ: isolated("clone", url_read=True),
    CLONING: isolated("clone", "clone"),
    "rollback": isolated("rollback"),
    "readonly": isolated("readonly"),
    BARE: bare_clone,
    "pgtestdb's SQL": pgtestdb,
    "pytest-postgresql": pytest_postgresql,
    "TRUNCATE + COPY": truncate,
    "Django's flush, seeds lost": flush,
}
PEERS: Final = tuple(WAYS)[7:]


def chosen(names: tuple[str, ...] = tuple(WAYS)) -> dict[str, Callable[[Bench], Way]]:
    """Those of the ways that can be had here."""
    with contextlib.suppress(ImportError):
        import pytest_postgresql.janitor  # noqa: F401

        return {name: WAYS[name] for name in names}
    return {name: WAYS[name] for name in names if name != "pytest-postgresql"}
