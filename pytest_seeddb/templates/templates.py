"""Get the template of a plan, or build it: once, whoever else is at it, whenever one is killed.

The commit point of a build is the rename to the final name. Whatever has a final name is complete
and sealed; whatever died before has a private name that carries its builder's lease, and is dropped
by the next one who looks (`pytest_seeddb.templates.inventory`).
"""

from __future__ import annotations

import datetime as dt
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import count
from time import perf_counter, sleep, time
from typing import TYPE_CHECKING

from pytest_seeddb.errors import BuildError, SeedDbError, StoredError
from pytest_seeddb.fingerprint import recording as data_files
from pytest_seeddb.fingerprint.digests import Part, chain, chain_of_set, explain_change, merge, seal
from pytest_seeddb.plan.numbering import Numbering
from pytest_seeddb.plan.plan import Indivisible
from pytest_seeddb.servers.database_errors import server_errors
from pytest_seeddb.servers.naming import build_name, lock_key, new_lease, parse_name, template_name
from pytest_seeddb.templates import history
from pytest_seeddb.templates.building import Build, BuildSupport, Elsewhere, fill, finish
from pytest_seeddb.templates.grants import Carried
from pytest_seeddb.templates.inventory import drop_unused
from pytest_seeddb.templates.record import FORM, Record
from pytest_seeddb.templates.salt import salt_of, server_origin, user_origin
from pytest_seeddb.templates.staleness import staleness

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_seeddb.plan.plan import Plan, Stage
    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.servers.admin import Admin
    from pytest_seeddb.servers.server import Server
    from pytest_seeddb.templates.history import Comparison
    from pytest_seeddb.templates.record import Steps

_BASE = """
SELECT current_setting('server_version_num')::int / 10000, pg_encoding_to_char(encoding), datcollate, datctype,
       coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale', ''), datlocprovider, current_user
FROM pg_database d WHERE datname = 'template0'
"""
_ALTERED = "somebody altered the last template, which nobody was to open"
_SPREAD = 32
"""Steps between the layers in the middle of a stage, or more: up to three in a longer one."""
_BASE_NAMES = ("PostgreSQL", "encoding", "collation", "character type", "locale", "locale provider", "owner")


@dataclass(frozen=True)
class Template:
    """A finished, sealed database for one fingerprint. Nobody can connect to it.

    Attributes:
        name: The database.
        record: What it says of itself.
        carried: The settings and grants that each clone gets.
        built: Whether this process built it just now; else it was there.
        project: The project that asked for it, in this process.
        reason: Why it was built, in one line.
    """

    name: str
    record: Record
    carried: Carried
    project: str
    built: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Look:
    """A plan as the server sees it: the server's own part first, then the plan's steps, a fingerprint for each.

    ``template`` is empty if there is no finished one; then ``reason`` says why the next run builds one. ``opened`` is
    what the build of the template read, or the last build, beside what the steps say. ``code`` is the code that each
    step of the template depends on; without one, all that the steps may run.
    """

    steps: Steps
    fingerprints: tuple[str, ...]
    template: str
    reason: str
    opened: tuple[Part, ...] = ()
    code: Sequence[tuple[str, tuple[Part, ...]]] = ()


class Templates:
    """The templates of one server, as one process sees them.

    ``run`` is what the processes of one run have in common, empty where there is only one.

    Concurrency: any number of processes may ask for the same plan at once; one builds, the others
    wait for it and use what it built. A template that was handed out stays on the server for as
    long as the process lives. After a failed or killed build there is no template, and nothing
    half-built is ever handed out.
    """

    _numbers = count(
        1
    )  # of all together: a crash of the server may have taken a rename back, and a name is there again

    def __init__(
        self,
        admin: Admin,
        lease: str,
        server: Server,
        *,
        support: BuildSupport,
        token: str = "",
        run: str = "",
    ) -> None:
        self._admin = admin
        self._lease = lease
        self._token = token
        self._run = run
        self._failed: dict[str, StoredError] = {}
        self._indivisible: set[str] = set()
        self._support = support
        self._server = server
        self._origin: str | None = None
        self._held: set[str] = set()
        self._staleness: dict[str, str] = {}
        self._base: tuple[Part, ...] = ()

    @property
    def base(self) -> tuple[Part, ...]:
        """What the server contributes to every fingerprint."""
        if not self._base:
            row = self._admin.run(_BASE)[0]
            said = tuple(Part(name, str(value)) for name, value in zip(_BASE_NAMES, row, strict=True))
            self._base = (*said, *self._server.inputs)
        return self._base

    @property
    def failed(self) -> bool:
        """Whether a build of this process failed."""
        return bool(self._failed)

    def get(self, plan: Plan) -> Template:
        """The plan's template, built if need be.

        Raises:
            BuildError: A step failed; the server is as it was before.
            psycopg.Error: The server refused something: disk full, no privilege, gone.
        """
        plan, prints = self._fingerprints_of(plan)
        return self._find(plan, prints[-1]) or self._ensure(plan, prints, len(plan.steps))

    def fingerprints(self, plan: Plan) -> list[str]:
        """Those of no step, the first step, the first two, ... on this server."""
        return self._seal(plan).fingerprints(self.base)

    def has(self, plan: Plan, end: int) -> bool:
        """Whether there is a finished template of the plan's first ``end`` steps."""
        plan, prints = self._fingerprints_of(plan)
        return self._find(plan, prints[end]) is not None

    def look(self, plan: Plan) -> Look:
        """What determines the plan's template and whether there is one; builds nothing."""
        with server_errors("The templates could not be listed", self._admin.address):
            plan, prints = self._fingerprints_of(plan)
            declared = tuple((step.name, step.declared) for step in plan.steps)
            template = self._find(plan, prints[-1])
            reason = "" if template else self._reason(plan, declared, prints[-1])
            build = template.record if template else history.last_build(self._admin, plan)
        opened = data_files.counted(build.opened, plan.ignored_variables) if build else ()
        code = tuple((step.name, tuple(part for part in step.parts if part.name in step.code)) for step in plan.steps)
        return Look(
            steps=(("server", self.base), *declared),
            fingerprints=tuple(prints),
            template=template.name if template else "",
            reason=reason,
            opened=opened,
            code=template.record.ran.steps if template else code,
        )

    def _reason(self, plan: Plan, steps: Steps, fingerprint: str) -> str:
        before = history.last_build(self._admin, plan)
        if before is None:
            return history.reason_without_build(self._admin, plan)
        if why := next((why for name, why in self._staleness.items() if why and before.fingerprint[:24] in name), ""):
            return why
        if before.form != FORM and before.fingerprint != fingerprint and not self._token:
            return history.OLDER_FORM
        change = explain_change(*history.then_and_now(before, plan, steps))
        if not change and not self._token and before.fingerprint == fingerprint:
            return _ALTERED
        return change or ("it was asked for" if self._token else history.ANOTHER_BASE)

    def compare(self, plan: Plan) -> Comparison | None:
        """How the plan differs from the project's last build of it; ``None`` where there is none."""
        with server_errors("The templates could not be listed", self._admin.address):
            plan, prints = self._fingerprints_of(plan)
            before = history.last_build(self._admin, plan)
            if before is None and (template := self._find(plan, prints[-1])):  # another checkout's
                before = template.record
        return None if before is None else history.compare(before, plan, prints[-1])

    def _fingerprints_of(self, plan: Plan) -> tuple[Plan, list[str]]:
        """The plan with its secrets sealed, and the fingerprint of each of its prefixes."""
        plan = self._seal(plan)
        return plan, plan.keys(self.base)

    def _seal(self, plan: Plan) -> Plan:
        return plan.sealed(self._salt(plan)) if plan.has_secrets else plan

    def _salt(self, plan: Plan) -> str:
        if self._origin is None:
            self._origin = user_origin() if self._server.is_ephemeral else server_origin(self._admin)
        return salt_of(plan.name, self._origin)

    # -- finding -----------------------------------------------------------------------------

    def _find(self, plan: Plan, fingerprint: str) -> Template | None:
        """The newest finished template with the fingerprint whose data files are as they were."""
        candidates = [
            (record, database)
            for database in self._admin.databases(f"seeddb\\_t\\_%\\_{fingerprint[:24]}\\_%")
            if (record := Record.from_json(database.comment))
            and record.is_of(database)
            and self._fits(record, plan, fingerprint)
        ]
        for record, database in sorted(candidates, key=lambda pair: pair[1].number, reverse=True):
            if not self._hold(database.name, record):
                continue
            carried = Carried.of(self._admin, database.name)
            if carried.digest == record.carried:
                today = _now()[:10]  # the day of the last use, for pruning: one write a day
                used = (record if record.used == today else record.used_on(today)).used_by(plan.project)
                if used != record:
                    self._admin.comment(database.name, used.to_json())
                return Template(database.name, used, carried, plan.project)
        return None

    def _fits(self, record: Record, plan: Plan, fingerprint: str) -> bool:
        if record.fingerprint != fingerprint or (self._token and record.token != self._token):
            return False
        before, now = history.inputs_then_and_now(record, plan)
        return before == now

    def _hold(self, name: str, record: Record) -> bool:
        """Keep the template from being pruned; whether it is still there, and what was built."""
        if name not in self._held:
            self._admin.lock(lock_key("use", name), shared=True)
            if not self._admin.exists(name) or self._is_stale(name, record):
                self._admin.unlock(lock_key("use", name), shared=True)
                return False
            self._held.add(name)
        return True

    def _is_stale(self, name: str, record: Record) -> bool:
        if name not in self._staleness:
            self._staleness[name] = staleness(self._admin, name, record, self._next_name())
        return bool(self._staleness[name])

    # -- building ----------------------------------------------------------------------------

    def _ensure(self, plan: Plan, prints: Sequence[str], end: int) -> Template:
        """The template of the first ``end`` steps.

        Locks are taken from the end of the plan towards its start, so that two plans with a common
        prefix cannot wait for each other in a circle, and the prefix is built once.
        """
        with self._admin.hold(lock_key("build", prints[end], self._token)):
            if found := self._find(plan, prints[end]):
                return found
            with self._failing_once(prints[end]):
                started = perf_counter()
                done, base = self._start_from(plan, prints, end)
                return self._build(plan, prints, _Span(done, end, base, started))

    @contextmanager
    def _failing_once(self, fingerprint: str) -> Iterator[None]:
        """Let a build that fails do so once in a run, and not in each of its processes or profiles.

        The process in which it failed keeps a lock that tells the others, for as long as it lives.
        The lock is looked for under the build's own lock only, so nobody mistakes a look for it.
        """
        if fingerprint in self._failed:
            self._failed[fingerprint].raise_again()
        key = lock_key("failed", self._run, fingerprint)
        if self._run and not self._take_lock(key):
            raise BuildError(
                "The template could not be built",
                saw="another process of this run tried, and failed",
                remedy="see that process's tests: they show the whole error",
            )
        try:
            yield
        except SeedDbError as error:
            self._failed[fingerprint] = StoredError(error)
            raise
        except (Elsewhere, Indivisible):
            if self._run:
                self._admin.unlock(key)
            raise
        if self._run:
            self._admin.unlock(key)

    def _take_lock(self, key: int) -> bool:
        """Take the lock, with a little patience: the server ends a dying builder's locks one by one."""
        for pause in (0.0, 0.01, 0.1):
            sleep(pause)
            if self._admin.try_lock(key):
                return True
        return False

    def _start_from(self, plan: Plan, prints: Sequence[str], end: int) -> tuple[int, Template | None]:
        """The longest prefix that has a template, building the layers before the end that are to be kept."""
        if not end:
            return 0, None
        ends = [at for at, stage in plan.stage_ends() if at < end and stage.layered]
        at, stage = next((at, stage) for at, stage in plan.stage_ends() if at >= end)
        subset = self._subset(plan, prints, at - len(stage.steps), end) if stage.in_any_order else (0, None)
        existing = self._fingerprints()
        stops = self._stops(plan, stage, at, end) if stage.stops else set()
        for done in range(end - 1, subset[0], -1):
            if done in ends:
                return done, self._ensure(plan, prints, done)
            if done in stops and prints[at] not in self._indivisible:
                try:
                    return done, self._ensure(plan, prints, done)
                except Indivisible:
                    if end < at:
                        raise
                    self._indivisible.add(prints[at])
            if prints[done][:24] in existing and (found := self._find(plan, prints[done])):
                return done, found
        return subset

    def _stops(self, plan: Plan, stage: Stage, at: int, end: int) -> set[int]:
        """After how many steps layers are kept in the middle of a stage that ends at ``at``.

        One is before the first step that changed since the last build: the next edit of it costs that step and what
        follows. Some are spread over a long stage, as long as what is before them holds.
        """
        start = at - len(stage.steps)
        stops = {start + stop for stop in stage.stops}
        held = history.steps_that_hold(self._admin, plan, at)
        distance = max(_SPREAD, 1 << (len(stage.steps).bit_length() - 2))
        spread = {start + stop for stop in range(distance, len(stage.steps), distance)}
        if held in stops:
            spread = {held, *(stop for stop in spread if stop < held)}
        return {stop for stop in stops & spread if stop < end}

    def _subset(self, plan: Plan, prints: Sequence[str], start: int, end: int) -> tuple[int, Template | None]:
        """The largest layer that has some of these steps, whose order does not count, and all before them."""
        wanted = {(step.name, step.declared) for step in plan.steps[start:end]}
        records = (Record.from_json(database.comment) for database in self._admin.databases(r"seeddb\_t\_%"))
        fitting = [
            record
            for record in records
            if record
            and wanted.issuperset(own := record.steps[start:])
            and record.fingerprint in {chain_of_set(prints[start], own), _chain_of_list(prints[start], own)}
        ]
        for record in sorted(fitting, key=lambda record: len(record.steps), reverse=True):
            if found := self._find(plan, record.fingerprint):
                return len(record.steps), found
        return 0, None

    def _fingerprints(self) -> set[str]:
        names = [parse_name(database.name) for database in self._admin.databases(r"seeddb\_t\_%")]
        return {name.fingerprint for name in names if name}

    def _build(self, plan: Plan, prints: Sequence[str], span: _Span) -> Template:
        steps = tuple((step.name, step.declared) for step in plan.steps[: span.end])
        reason = self._reason(plan, steps, prints[span.end])
        numbering = span.base.record.numbering.copy() if span.base else Numbering()
        stages = list(plan.stages_between(span.done, span.end))
        self._support.watch.begin(plan)
        since = time()
        with ExitStack() as undo:
            undo.enter_context(self._support.around())
            beside = self._beside(plan, undo) if any(stage.tier for stage, _ in stages) else {}
            build = Build(self._admin, self._next_name(), plan, self._support.progress, numbering, beside)
            undo.callback(self._drop_if_there, build.name)
            self._start(build.name, span.base)
            before = self._roles()
            there = (span.base.record.steps, span.base.record.ran) if span.base else ((), plan.imported)
            try:
                opened, ran = fill(build, stages, steps, lambda plan: self._seal(self._support.again(plan)), there)
            except SeedDbError as error:
                self._support.watch.fail(plan, error)
                raise
            self._support.watch.end(plan, span.end, since)
            # A role outlives its template: what an earlier build made, this one finds.
            earlier_builds = [span.base.record if span.base else None, history.last_build(self._admin, plan)]
            made = {name for record in earlier_builds if record for name in record.roles}
            earlier = span.base.record.opened if span.base else ()
            has_secrets = any(part.secret for part in opened)
            salt = self._salt(plan) if has_secrets else plan.salt or (span.base.record.salt if span.base else "")
            draft = Record(
                plan=plan.name,
                profile=plan.profile,
                fingerprint=prints[span.end],
                steps=steps,
                opened=merge((*earlier, *seal(opened, salt))),
                ran=ran,
                numbering=numbering,
                moments={**(span.base.record.moments if span.base else {}), **build.moments},
                strategy=span.base.record.strategy if span.base else "FILE_COPY",
                size=span.base.record.size if span.base else 0,
                layer=span.end < len(plan.steps),
                inner=span.end not in {at for at, _ in plan.stage_ends()},
                token=self._token,
                used=_now()[:10],
                salt=salt,
                form=FORM,
                roles=tuple(sorted(made | (self._roles() - before))),
                projects=(plan.project,),
            )
            record = finish(build, draft, span.started)
            return self._publish(build, record, reason)

    def _roles(self) -> set[str]:
        return {name for (name,) in self._admin.run("SELECT rolname FROM pg_roles")}

    def _next_name(self) -> str:
        return build_name(self._lease, next(self._numbers))

    def _beside(self, plan: Plan, undo: ExitStack) -> dict[str, Address]:
        """The project's further databases, migrated, for the seeders to find; they go with ``undo``."""
        addresses = {}
        for alias, sibling in self._support.siblings(plan).items():
            name = self._next_name()
            undo.callback(self._drop_if_there, name)
            self._start(name, self.get(sibling.without_seeds))
            addresses[alias] = self._admin.address.with_database(name)
        return addresses

    def _start(self, name: str, base: Template | None) -> None:
        if base is None:
            self._admin.create(name)
        else:
            base.carried.clone(self._admin, base.name, name, base.record.strategy)

    def _publish(self, build: Build, record: Record, reason: str) -> Template:
        final = template_name(record.plan, record.fingerprint, new_lease())
        carried = Carried.of(self._admin, build.name)
        record = replace(record, carried=carried.digest)
        self._admin.lock(lock_key("use", final), shared=True)
        self._held.add(final)
        sealed = self._admin.publish(build.name, final, lambda sealed: replace(record, sealed=sealed).to_json())
        if reason == history.OLDER_FORM:
            for older in history.of_older_form(self._admin, record):
                drop_unused(self._admin, older)
        return Template(final, replace(record, sealed=sealed), carried, build.plan.project, built=True, reason=reason)

    def _drop_if_there(self, name: str) -> None:
        if not self._admin.is_broken:
            self._admin.drop(name)


@dataclass(frozen=True)
class _Span:
    """Which steps a build runs, what it starts from, and when it began, layers included."""

    done: int
    end: int
    base: Template | None
    started: float


def _chain_of_list(before: str, steps: Steps) -> str:
    """The fingerprint of a layer in the middle of a stage."""
    for name, parts in steps:
        before = chain(before, name, parts)
    return before


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="microseconds")
