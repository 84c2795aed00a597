"""What a template says about itself: the JSON in its database comment."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, get_args

from pytest_seeddb.fingerprint.digests import FORMAT, Part, part_pairs, parts_from
from pytest_seeddb.fingerprint.participation import Participation
from pytest_seeddb.plan.numbering import Numbering, drawn_from
from pytest_seeddb.servers.admin import Strategy

if TYPE_CHECKING:
    from pytest_seeddb.servers.admin import Database

_PLAIN: Final[dict[str, type | tuple[type, ...]]] = {
    **dict.fromkeys(("plan", "profile", "fingerprint", "token", "created", "used", "carried", "unlogged", "salt"), str),
    "sealed": int,
    "layer": bool,
    "inner": bool,
    "size": int,
    "days": int,
    "moments": dict,
    "form": int,
    "seconds": (int, float),
}
"""What `Record.from_json` checks beside its own reading: these are compared and sorted."""

FORM: Final = 4
"""Of how a plan's inputs become fingerprints: templates of another form are built anew, once. 0 is that of 0.1.0."""

_PROJECTS: Final = 16
"""Projects that a record names at most: checkouts without a repository, in directories that do not last, are many."""

Steps = tuple[tuple[str, tuple[Part, ...]], ...]


@dataclass(frozen=True)
class Record:
    """Everything that is known of a finished template.

    Attributes:
        steps: What made it, step by step, part by part.
        ran: The code that its steps depend on.
        opened: The data files that the build opened, as they were when it ended.
        strategy: The cheapest way to clone it on this server, as measured.
        layer: Whether it holds a prefix of the plan it was built for.
        inner: Whether it ends in the middle of a stage.
        token: Of the run that asked for a new build although there was one; else empty.
        created: When it was finished, ISO 8601, UTC; ``used`` is the day of its last use.
        numbering: The numbers of factory_boy's sequences that its steps have drawn.
        sealed: The transaction that sealed it; see `pytest_seeddb.servers.admin.Database.altered`.
        carried: The digest of its settings and grants as they were then.
        days: On how many days it was used. Runs are not counted: that would be a write in each of them.
        unlogged: A digest of its unlogged tables, which do not outlive a crash; empty without any.
        roles: The roles that its build made.
        form: See `FORM`.
        moments: By step, the first transaction number that nobody had used when it began: rows with this number or a
            later one were last written by it, or by a step after it. Empty where an earlier version built.
        salt: That of the secrets among its parts; see `pytest_seeddb.fingerprint.digests.seal`.
        projects: Those that built or used it, see `pytest_seeddb.settings.files.project_identity`; earlier versions
            noted none.
    """

    plan: str
    profile: str
    fingerprint: str
    steps: Steps
    opened: tuple[Part, ...] = ()
    ran: Participation = field(default_factory=Participation)
    strategy: Strategy = "FILE_COPY"
    layer: bool = False
    inner: bool = False
    token: str = ""
    size: int = 0
    seconds: float = 0.0
    created: str = ""
    used: str = ""
    numbering: Numbering = field(default_factory=Numbering)
    sealed: int = 0
    carried: str = ""
    days: int = 1
    unlogged: str = ""
    roles: tuple[str, ...] = ()
    salt: str = ""
    projects: tuple[str, ...] = ()
    form: int = 0
    moments: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """The comment's text."""
        steps = [[name, part_pairs(parts)] for name, parts in self.steps]
        fields = {**vars(self), "steps": steps, "numbering": self.numbering.steps, "ran": self.ran.to_json()}
        return json.dumps({"seeddb": FORMAT, **fields, "opened": part_pairs(self.opened)})

    @classmethod
    def from_json(cls, text: str) -> Record | None:
        """Read a comment; ``None`` where it is not one of ours, or is damaged."""
        try:
            fields = json.loads(text)
            if fields.pop("seeddb") != FORMAT or fields["strategy"] not in get_args(Strategy):
                return None
            steps = tuple((str(name), parts_from(parts)) for name, parts in fields.pop("steps"))
            if not all(isinstance(fields[name], kind) for name, kind in _PLAIN.items() if name in fields):
                return None
            fields |= {name: tuple(map(str, fields.get(name, ()))) for name in ("roles", "projects")}
            numbering = Numbering({name: drawn_from(drawn) for name, drawn in fields.pop("numbering", {}).items()})
            fields["ran"] = Participation.from_json(fields.get("ran"))
            return cls(**{**fields, "steps": steps, "opened": parts_from(fields["opened"]), "numbering": numbering})
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None

    def is_of(self, database: Database) -> bool:
        """Whether nobody has opened the database, or altered it otherwise, since it was sealed."""
        return self.sealed == database.altered

    def used_on(self, day: str) -> Record:
        """The same record with one more day of use."""
        return dataclasses.replace(self, used=day, days=self.days + 1)

    def used_by(self, project: str) -> Record:
        """The same record, which names the project."""
        if project in self.projects:
            return self
        return dataclasses.replace(self, projects=(*self.projects[1 - _PROJECTS :], project))

    def is_outdated_by(self, new: Record) -> bool:
        """Whether an earlier version made it of the same plan and profile, and it names no other project."""
        same = (self.plan, self.profile) == (new.plan, new.profile)
        return same and self.form < FORM and (not self.projects or not {*self.projects}.isdisjoint(new.projects))
