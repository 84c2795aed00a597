"""The marker: ``@pytest.mark.seeded("minimal", isolation="rollback", stores=10)``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.errors import ConfigError, names_a_secret
from pytest_seeddb.settings.converters import did_you_mean
from pytest_seeddb.settings.settings import ISOLATIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pytest

NAME: Final = "seeded"
SIGNATURE: Final = (
    "seeded(profile=None, *, isolation=None, **parameters): give the test a private database, migrated and seeded. "
    "profile: which seeds; isolation: clone, rollback or readonly; parameters: seed parameters that go before "
    "the profile's."
)

FIXTURES: Final = frozenset(
    {
        "seeded_db",
        "seeded_url",
        "seeded_connection",
        "seeded_engine",
        "seeded_session",
        "seeded_async_engine",
        "seeded_async_session",
        "seeded_db_factory",
    }
)
"""Using one of them marks a test ``seeded``."""


@dataclass(frozen=True)
class Wish:
    """What the markers of a test ask for; ``None`` where they leave it to the settings."""

    profile: str | None = None
    isolation: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)

    @property
    def is_default(self) -> bool:
        """Whether the plan of the settings is meant."""
        return self.profile is None and not self.parameters

    @property
    def shown(self) -> str:
        """As a marker would be written."""
        isolation = {"isolation": self.isolation} if self.isolation else {}
        return _written([self.profile] if self.profile is not None else [], {**isolation, **self.parameters})


def wish_of(node: pytest.Item | pytest.Collector) -> Wish:
    """Combine the markers of a test and of its class, module and package, the closest first; raises `ConfigError`."""
    wish = Wish()
    for mark in node.iter_markers(NAME):
        further = _read(mark, node)
        wish = Wish(
            wish.profile if wish.profile is not None else further.profile,
            wish.isolation or further.isolation,
            {**further.parameters, **wish.parameters},
        )
    return wish


def _read(mark: pytest.Mark, node: pytest.Item | pytest.Collector) -> Wish:
    given: dict[str, Any] = dict(mark.kwargs)
    if len(mark.args) > 1 or (mark.args and "profile" in given):
        raise _wrong(node, mark, "The marker takes one profile", "give one name: @pytest.mark.seeded('minimal')")
    profile = mark.args[0] if mark.args else given.pop("profile", None)
    if profile is not None and (not isinstance(profile, str) or not profile.strip()):
        raise _wrong(node, mark, "The marker's profile is not a name", "give it as a string: 'minimal'")
    isolation = given.pop("isolation", None)
    if isolation is not None and isolation not in ISOLATIONS:
        remedy = f"{did_you_mean(str(isolation), ISOLATIONS)} Allowed are {', '.join(ISOLATIONS)}".strip()
        raise _wrong(node, mark, f"isolation={isolation!r} is not allowed in the marker", remedy)
    for name in given:  # seed parameters may have any name, but one that is nearly a word of the marker is a typo
        if near := did_you_mean(name, ("isolation", "profile")):
            raise _wrong(node, mark, f"The marker does not take `{name}`", near)
    return Wish(profile, isolation, given)


def _wrong(node: pytest.Item | pytest.Collector, mark: pytest.Mark, what: str, remedy: str) -> ConfigError:
    return ConfigError(what, saw=f"@pytest.mark.{_written(mark.args, mark.kwargs)}", source=node.nodeid, remedy=remedy)


def _written(args: Iterable[object], parameters: Mapping[str, object]) -> str:
    """A marker as code, without secrets."""
    named = (f"{name}={'***' if names_a_secret(name) else repr(value)}" for name, value in parameters.items())
    return f"{NAME}({', '.join([*map(repr, args), *named])})"


def uses_a_fixture(names: Iterable[str]) -> bool:
    """Whether a test asks for one of the per-test fixtures, directly or not."""
    return not FIXTURES.isdisjoint(names)
