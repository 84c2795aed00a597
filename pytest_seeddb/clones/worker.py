"""What one process does on a server: its lease, its templates, its clones, and tidying up."""

from __future__ import annotations

import atexit
import os
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter, time
from typing import TYPE_CHECKING, Self

import psycopg

from pytest_seeddb.application.roles import OWNER
from pytest_seeddb.clones.apart import Apart, Watch
from pytest_seeddb.clones.database import SeededDatabase, View, check_isolation
from pytest_seeddb.clones.disposal import Disposal
from pytest_seeddb.clones.elsewhere import build_elsewhere
from pytest_seeddb.clones.leftovers import Leftovers
from pytest_seeddb.clones.pool import Clone, CloneOptions, Clones, Pool
from pytest_seeddb.clones.shared import SharedClone
from pytest_seeddb.clones.support import build_support
from pytest_seeddb.errors import ConfigError, SeedDbError, StoredError
from pytest_seeddb.plan.plan import Plan, Progress
from pytest_seeddb.servers.admin import Admin
from pytest_seeddb.servers.database_errors import server_errors
from pytest_seeddb.servers.globals import PRESENT
from pytest_seeddb.servers.naming import lock_key, new_lease
from pytest_seeddb.templates.building import Build, BuildSupport, BuildWatch, Elsewhere, finish
from pytest_seeddb.templates.grants import roles_of
from pytest_seeddb.templates.inventory import prune, sweep
from pytest_seeddb.templates.templates import Templates

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from pytest_seeddb.application.roles import Role
    from pytest_seeddb.clones.pool import Leased
    from pytest_seeddb.clones.settle import Settlement
    from pytest_seeddb.servers.server import Server
    from pytest_seeddb.templates.exports import KeptDumps
    from pytest_seeddb.templates.history import Comparison
    from pytest_seeddb.templates.templates import Look, Template


class Worker:
    """One process's work on one server, under one lease.

    Lifetime: until `close`, which drops what was made. When the process dies without it, the server ends the lease and
    the next run's sweep drops what is left. A server that is restarted meanwhile is connected to again; what stood
    without a lease is not handed out. A forked child that goes on with it gets a connection and a lease of its own.
    """

    def __init__(
        self,
        server: Server,
        *,
        token: str = "",
        run: str = "",
        options: CloneOptions | None = None,
        support: BuildSupport | None = None,
        dumps: KeptDumps | None = None,
    ) -> None:
        self.server = server
        self._homes: dict[str, Worker] = {}
        self._dumps = dumps
        self._options = options or CloneOptions()
        self._token = token
        self._run = run
        self._support = support or build_support()
        self._templates: dict[str, Template | StoredError] = {}
        self._plans: dict[str, Plan] = {}
        self._roles: dict[tuple[str, str], Mapping[str, Role]] = {}
        self.is_finished = False
        self._keys: dict[tuple[str, str, str], str] = {}
        self._open()

    def _open(self) -> None:
        self._process = os.getpid()
        with server_errors("The PostgreSQL server refused the first statements", self.server.address):
            connect = partial(Admin, self.server.address, self.server.find_end)
            self._admin = connect()
            self._lease = new_lease()
            self._lock()
            self._leftovers = Leftovers(self._admin, self.server)
        self._disposal = Disposal(connect)
        self._clones = Clones(self._admin, self._lease, self._disposal, self._options.form, self.server.memory)
        self._pool = Pool(
            self._clones, self._disposal, self._leftovers, superuser=self.server.superuser, reset=self._options.reset
        )
        self._shared: dict[str, SharedClone] = {}
        open_data = self._support.open_data
        self._apart: Apart[Worker] | None = None
        if open_data and self.server.state:
            self._apart = Apart(self.server, open_data, self._make_beside, self._run)
        self._watch = Watch(self._leftovers, self._apart, self._support.progress, refuses=self._support.is_apart)
        self._source = self._new_source()
        self._disposal.do(sweep)
        if self.server.kind != "external":  # ours run without autovacuum; what others do with theirs is their own
            self._disposal.do(Admin.tidy_catalogs)

    def _lock(self) -> None:
        self._admin.lock(lock_key("lease", self._lease))
        self._admin.lock(PRESENT, shared=True)

    def _new_source(self) -> Templates:
        return Templates(
            self._admin,
            self._lease,
            self.server,
            support=replace(self._support, watch=self.watch),
            token=self._token,
            run=self._run,
        )

    def _make_beside(self, server: Server) -> Worker:
        """A worker of the same run on another server; it has no others."""
        support = replace(self._support, open_data=None, is_apart=True)
        return Worker(server, token=self._token, run=self._run, options=self._options, support=support)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def admin(self) -> Admin:
        """This process's administrative connection."""
        self._own()
        return self._admin

    @property
    def clones(self) -> Clones:
        """This process's clones."""
        self._own()
        return self._clones

    @property
    def pool(self) -> Pool:
        """This process's clones as tests take them and give them back."""
        self._own()
        return self._pool

    @property
    def templates(self) -> list[Template]:
        """Every template that was asked for and got."""
        return [template for template in self._templates.values() if not isinstance(template, StoredError)]

    @property
    def failures(self) -> list[str]:
        """What went wrong while tidying up, and what else no test was told."""
        own = [*self.server.notes, *self._watch.notes, *self._disposal.failures, *self._leftovers.notes]
        return own + [line for worker in self.others for line in worker.failures]

    @property
    def watch(self) -> BuildWatch:
        """What is asked around each build on this server."""
        return self._watch if self.server.state else self._support.watch

    @property
    def others(self) -> list[Worker]:
        """The workers on data of their own, for plans that need them."""
        return [*self._apart.workers.values()] if self._apart else []

    @property
    def holds_failure(self) -> bool:
        """Whether a build failed here, and locks tell the run's other processes for as long as this one lives."""
        return bool(self._run) and (self._source.failed or any(worker.holds_failure for worker in self.others))

    def home(self, template: Template) -> Worker:
        """The worker on the server that has the template: this one, but for a plan that needs data of its own."""
        return self._homes.get(template.name, self)

    @property
    def notes(self) -> list[str]:
        """What is unusual about the sources of the templates that were built."""
        plans = [self._plans.get(template.name) for template in self.templates if template.built]
        return [line for plan in plans if plan for line in plan.unusual()]

    def _own(self) -> None:
        if self._process != os.getpid():
            self._open()

    def _connect(self) -> None:
        """Have a connection, and the lease, again after the server was restarted or somebody ended our backend."""
        self._own()
        if self.is_finished or not self._admin.is_lost:
            return
        with server_errors("The connection to the PostgreSQL server was lost", self.server.address):
            self._admin.reconnect()
            self._lock()
        self._start_over()

    def _start_over(self) -> None:
        """Hand out nothing that stood while nobody held the lease; look at each template anew."""
        while self._shared:
            self._shared.popitem()[1].give_up()
        self._pool.close()
        self._templates.clear()
        self._source = self._new_source()

    def look(self, plan: Plan) -> Look:
        """What determines the plan's template and whether there is one; builds nothing."""
        self._connect()
        return self._known_source(plan).look(plan)

    def compare(self, plan: Plan) -> Comparison | None:
        """How the plan differs from its last build; ``None`` where there is none."""
        self._connect()
        return self._known_source(plan).compare(plan)

    def _known_source(self, plan: Plan) -> Templates:
        """Where the plan's last build is."""
        home = self._apart.known_worker(plan, self._source.fingerprints(plan)) if self._apart else None
        return home._source if home else self._source  # noqa: SLF001 - a worker, too

    def template(self, plan: Plan) -> Template:
        """The plan's template; built at most once, and not tried again after it failed.

        Raises:
            BuildError: A step failed, now or when this process asked before.
            ConfigError: Another plan goes by the same name and profile.
            ServerError: The server refused something.
        """
        self._connect()
        secret = repr(plan.recipe and sorted(plan.recipe.overrides.items()))  # which the profile's name does not show
        if self._keys.setdefault((plan.name, plan.profile, secret), plan.key) != plan.key:
            raise ConfigError(
                f"Two different plans have the name {plan.name!r} and the profile {plan.profile!r}",
                saw="\n".join(step.name for step in plan.steps) or "no steps",
                source="the fixtures seeddb_plan or seeddb_settings, overridden in a conftest.py",
                remedy="give one of them another name: seeddb_settings.replace(name=...)",
            )
        if plan.key not in self._templates:
            template = None
            try:
                with server_errors("The template could not be made", self.server.address):
                    # Apart, this process holds the lock of the data: a child would wait for it.
                    reason = "" if self._support.is_apart else build_elsewhere(plan, self, self._token, self._run)
                    with suppress(Elsewhere):
                        if not (self._apart and self._apart.notes(plan).touches):
                            template = self._restore(plan, self._dumps) if self._dumps else self._source.get(plan)
                    template = template or self._get_apart(plan)
                    template = replace(template, built=True, reason=reason) if reason else template
            except SeedDbError as error:
                self._templates[plan.key] = StoredError(error)
            else:
                self._templates[plan.key] = template
                if template.built:
                    self._disposal.do(partial(prune, plan=plan.name, project=plan.project))
        stored = self._templates[plan.key]
        if isinstance(stored, StoredError):
            stored.raise_again()
        self._plans[stored.name] = plan
        return stored

    def _get_apart(self, plan: Plan) -> Template:
        if self._apart is None:
            raise Elsewhere
        home = self._apart.worker_for(plan, self._source.fingerprints(plan))
        template = home.template(plan)
        self._homes[template.name] = home
        return template

    def has(self, plan: Plan, end: int) -> bool:
        """Whether there is a finished template of the plan's first ``end`` steps."""
        self._connect()
        return self._source.has(plan, end)

    @contextmanager
    def fresh_servers(self) -> Iterator[tuple[Server, Server]]:
        """Two servers for builds that change globals, with new data; twice this one where there is no other."""
        with ExitStack() as stack:
            open_one = self._apart.throwaway if self._apart else lambda: nullcontext(self.server)
            yield stack.enter_context(open_one()), stack.enter_context(open_one())

    def founding(self) -> AbstractContextManager[list[int]]:
        """Let builds change globals during the block; gives the last steps of the layers that did."""
        return self._watch.founding()

    def siblings(self, plan: Plan) -> Mapping[str, Plan]:
        """The plans of a Django project's further databases, by alias."""
        return self._support.siblings(plan)

    def beside(self, plan: Plan) -> dict[str, Template]:
        """The templates of a Django project's further databases, by alias."""
        return {alias: self.template(sibling) for alias, sibling in self.siblings(plan).items()}

    @contextmanager
    def database(
        self,
        template: Template,
        isolation: str = "clone",
        env: tuple[str, ...] = (),
        beside: Mapping[str, Template] | None = None,
    ) -> Iterator[SeededDatabase]:
        """A seeded database for a block.

        Args:
            template: What it is made from.
            isolation: ``clone``, ``rollback`` or ``readonly``.
            env: Names of environment variables for `SeededDatabase.env`.
            beside: The templates of a Django project's further databases, by alias.

        Raises:
            ConfigError: There is no such isolation.
            ServerError: The server refused the clone.
        """
        check_isolation(isolation)

        def lend(template: Template, env: tuple[str, ...], stack: ExitStack) -> SeededDatabase:
            home = self.home(template)
            return (
                home._lend_clone(template, env, stack)  # noqa: SLF001 - a worker, too
                if isolation == "clone"
                else home._lend_shared(isolation, template, env, stack)  # noqa: SLF001 - a worker, too
            )

        started = perf_counter()
        with ExitStack() as stack:
            database = lend(template, env, stack)
            database.beside = {alias: lend(sibling, (), stack) for alias, sibling in (beside or {}).items()}
            database.seconds = perf_counter() - started
            yield database

    def _lend_clone(self, template: Template, env: tuple[str, ...], stack: ExitStack) -> SeededDatabase:
        leased = self.take(template)
        database = self.database_on(leased, env)
        database.lasts = not self.server.is_ephemeral

        def take_back() -> None:
            database.close_connections()
            if database.kept_as:
                self.keep(leased, database.kept_as)
            else:
                database.settlement = self.pool.give_back(leased, given_away=database.given_away)

        stack.callback(take_back)
        return database

    def database_on(self, leased: Leased, env: tuple[str, ...]) -> SeededDatabase:
        """A private clone as a test sees it; it lives as long as the lease."""
        home = self.home(leased.clone.template)
        return SeededDatabase(
            leased.clone,
            "clone",
            env,
            go_back=lambda: home.pool.renew(leased),
            view=View(partial(leased.changes, is_shared=home._leftovers.is_shared), leased.diff),  # noqa: SLF001 - a worker
            look_up_roles=partial(self.roles, leased.clone.template),
        )

    def roles(self, template: Template, wanted: str) -> Mapping[str, Role]:
        """The roles that an application's connections to the template's clones may have; asked for once.

        Those that the plan's build made, or granted something, and ``wanted`` if it names one.
        """
        key = (template.name, wanted)
        if key not in self._roles:
            admin, made = self.home(template).admin, template.record.roles
            self._roles[key] = {} if wanted == OWNER else roles_of(admin, template.name, made, wanted)
        return self._roles[key]

    def _lend_shared(
        self, isolation: str, template: Template, env: tuple[str, ...], stack: ExitStack
    ) -> SeededDatabase:
        since = time()
        shared = self.shared_clone(template)
        with server_errors("The clone that tests share could not be made", self.server.address):
            clone = shared.take()
        database = SeededDatabase(
            clone,
            isolation,
            env,
            go_back=shared.restore_sequences,
            view=View(partial(shared.changes, is_shared=self._leftovers.is_shared), shared.diff),
            look_up_roles=partial(self.roles, template),
        )

        def take_back() -> None:
            database.close_connections()
            with suppress(psycopg.Error):  # a server that does not answer leaves doubt: the clone is given up
                mark = shared.settle(rolled_back=isolation == "rollback", given_away=database.given_away)
                self._leftovers.after_test(mark, since)

        stack.callback(take_back)
        return database

    def take(self, template: Template) -> Leased:
        """A clone in the seeded state, to be given back by `give_back`.

        Raises:
            ServerError: The server refused it.
        """
        template = self._present(template)
        return self.home(template).pool.take(template)

    def give_back(self, leased: Leased, *, given_away: bool = False) -> Settlement:
        """Settle a clone, see `Pool.give_back`."""
        return self.home(leased.clone.template).pool.give_back(leased, given_away=given_away)

    def is_as_watched(self, leased: Leased, backend: int) -> bool:
        """See `Pool.is_as_watched`."""
        return self.home(leased.clone.template).pool.is_as_watched(leased, backend)

    def clone(self, template: Template) -> Clone:
        """A clone of the template that stays as long as the worker."""
        return self.home(template).clones.make(template)

    def keep(self, leased: Leased, name: str) -> None:
        """Let a clone stay on the server under ``name``, for somebody to look at.

        Raises:
            ServerError: The server refused it.
        """
        self._connect()
        self._pool.keep(leased, name)

    def _present(self, template: Template) -> Template:
        """The template; found or built anew where the connection was lost since it was got."""
        self._connect()
        plan = self._plans.get(template.name)
        if plan is None or template.name in {known.name for known in self.templates}:
            return template
        return self.template(plan)

    def _restore(self, plan: Plan, dumps: KeptDumps) -> Template:
        """The template, restored from the dump of an earlier container's if there is one; else dumped for later."""
        look = self._source.look(plan)
        source = plan if self._token else dumps.restoring(plan, look)
        template = self._source.get(source)
        if source is not plan:
            return replace(template, reason="restored from the dump of an earlier container's")
        if template.built:
            with self._clones.lent(template) as clone:
                dumps.keep(clone.address, self.server.major, template, look)
        return template

    def freeze(self, leased: Leased) -> Template:
        """A template of what a clone holds now, for this worker alone; it goes with the worker.

        Ends every connection to the clone, which stays as it is.
        """
        self._connect()
        template = leased.clone.template
        if (home := self.home(template)) is not self:
            frozen = home.freeze(leased)
            self._homes[frozen.name] = home
            return frozen
        leased.release()
        self._admin.evict(leased.clone.name)
        copy = self._clones.make(replace(template, name=leased.clone.name))
        plan = Plan(template.record.plan, template.record.profile, Path.cwd())
        record = finish(Build(self._admin, copy.name, plan, Progress()), template.record, perf_counter())
        self._pool.watch(leased, is_fresh=False)
        return replace(template, name=copy.name, record=record)

    def shared_clone(self, template: Template) -> SharedClone:
        """This worker's shared clone of the template."""
        template = self._present(template)
        if template.name not in self._shared:
            self._shared[template.name] = SharedClone(self._admin, self._clones, self._disposal, template)
        return self._shared[template.name]

    def close(self) -> None:
        """Drop this worker's clones, after some 5 ms for each, and end its connections. Templates stay."""
        self.finish()
        self.leave()

    def finish(self) -> None:
        """The first part of `close`: drop the clones. What fixtures have made for the whole server stays."""
        if self._process != os.getpid():
            return
        self.is_finished = True
        for shared in self._shared.values():
            shared.give_up()
        if self._apart:
            self._apart.close()
        self._pool.close()
        self._clones.discard_all()
        # Once more: whoever was killed shortly before the run began had a lease until the server noticed.
        if not self._admin.is_lost:
            self._disposal.do(sweep)
        self._disposal.close()

    def leave(self) -> None:
        """The second part: undo what is left on the server, if nobody else is there, and end the last connection."""
        if self._process != os.getpid():
            return
        with suppress(psycopg.Error):  # the server's next start looks again
            self._leftovers.close()
        if self._run and self._source.failed:
            atexit.register(self._admin.close)
        else:
            self._admin.close()
