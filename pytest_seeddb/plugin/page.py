"""The report as a file: one page that needs nothing else, or the same data as JSON."""

from __future__ import annotations

import datetime as dt
import json
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING, Final

import pytest

from pytest_seeddb.errors import ConfigError
from pytest_seeddb.fingerprint import atomic
from pytest_seeddb.plugin.report import masked
from pytest_seeddb.plugin.run import RUN, is_enabled

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_seeddb.plugin.report import Tally
    from pytest_seeddb.plugin.uses import Use

FORMAT: Final = 1
"""Of the data. It grows when a name goes or gets another meaning; new names may come."""
_MARK: Final = "seeddb_report"
_SHARED: Final = 0.002
"""Seconds for a database that tests share, where the run had none and kept no clone: two looks at the server."""
_LEAST: Final = 0.0005
"""Seconds below which nothing is worth a change."""


class Page:
    """A plugin that writes the report when the run ends.

    Raises:
        pytest.UsageError: The file cannot be written, or is another one's.
    """

    def __init__(self, config: pytest.Config, path: Path) -> None:
        self._config = config
        self._path = path
        self._failure = ""
        try:
            self._check()
        except (OSError, ConfigError) as error:
            raise pytest.UsageError(str(self._explain(error))) from None

    def _check(self) -> None:
        if self._path.exists() and (old := self._path.read_bytes()) and _MARK.encode() not in old[:1000]:
            raise ConfigError(
                "The report would replace a file that is no report of pytest-seeddb",
                saw=str(self._path),
                source=self._config.stash[RUN].settings.source("report"),
                remedy="give the report another name: --seed-db-report=report.html",
            )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.beside(self._path):
            pass

    def _explain(self, error: OSError | ConfigError) -> ConfigError:
        if isinstance(error, ConfigError):
            return error
        return ConfigError(
            "The report cannot be written",
            saw=str(error),
            source=self._config.stash[RUN].settings.source("report"),
            remedy="name a file in a directory in which you may make files",
        )

    @pytest.hookimpl(trylast=True)  # after the plugin's own, which counts what was done
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write it, complete or not at all."""
        data = masked(document(self._config.stash[RUN].tally, int(exitstatus), is_on=is_enabled(self._config)))
        try:
            with atomic.beside(self._path) as partial:
                partial.write_text(_filled(data, self._path), encoding="utf-8")
                partial.replace(self._path)
        except OSError as error:
            self._failure = str(self._explain(error))

    @pytest.hookimpl(trylast=True)  # below the summary
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say where it is."""
        terminalreporter.write_line(f"seeddb: {self._failure or f'the report is in {self._path}'}")


def _filled(data: object, path: Path) -> str:
    text = json.dumps(data, indent=1 if path.suffix == ".json" else None)
    if path.suffix == ".json":
        return f"{text}\n"
    page = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    return page.replace("{data}", text.replace("<", "\\u003c"))  # so nothing in it ends the script


def document(tally: Tally, exit_status: int, *, is_on: bool) -> dict[str, object]:
    """All that the page shows, as plain data; see ``docs/reference/report.md``."""
    uses = tally.uses
    built = [
        {"template": label, "built": True, "seconds": seconds, "reason": reason}
        for label, (seconds, reason) in tally.built.items()
    ]
    reused = [label for label in dict.fromkeys(tally.reused) if label not in tally.built]
    shared = _price_of_sharing(uses)
    return {
        _MARK: FORMAT,
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "exit_status": exit_status,
        "enabled": is_on,
        "servers": list(dict.fromkeys(tally.servers)),
        "templates": built + [{"template": label, "built": False, "seconds": 0.0, "reason": ""} for label in reused],
        "notes": list(dict.fromkeys([*tally.notes, *tally.failures, *tally.warnings()])),
        "clones": tally.clones,
        "time": _time(tally),
        "wider_scope": _wider_scope(uses),
        "databases": [{**asdict(use), "instead": _instead(use, shared)} for use in uses],
    }


def _time(tally: Tally) -> dict[str, float]:
    """Where the seconds of all processes went."""
    build, uses = sum(seconds for seconds, _ in tally.built.values()), tally.uses
    parts = {
        "build": build,
        "clone": sum(use.taken for use in uses),
        "settle": sum(use.settled for use in uses),
        "tests": sum(use.seconds for use in uses),
    }
    rest = sum(use.around for use in uses) - build - parts["clone"] - parts["settle"]
    return {**parts, "fixtures": max(0.0, rest)}


def _price_of_sharing(uses: Sequence[Use]) -> float:
    """What a database costs that tests share, as this run has seen it."""
    shared = [use.cost for use in uses if use.afterwards in {"rollback", "readonly"}]
    return median_low(shared or [use.cost for use in uses if use.afterwards == "keep"] or [_SHARED])


def _instead(use: Use, shared: float) -> dict[str, object] | None:
    """The isolation that would have done, and the seconds that it would have saved."""
    saved = use.cost - shared
    if use.isolation != "clone" or len(use.tests) != 1 or use.left or saved < _LEAST:
        return None
    if use.afterwards == "keep":
        return {"isolation": "readonly", "seconds": saved}
    if use.afterwards in {"rewind", "discard"} and use.wrote and not use.given_away:
        return {"isolation": "rollback", "seconds": saved}
    return None


def _wider_scope(uses: Iterable[Use]) -> dict[str, object] | None:
    """The widest scope in which no test would have seen what another one did, if it would have saved databases."""
    alone = [use for use in uses if use.isolation == "clone" and len(use.tests) == 1]
    for scope in ("session", "module"):
        groups = defaultdict(list)
        for use in alone:
            groups[use.node.partition("::")[0] if scope == "module" else ""].append(use)
        fewer = len(alone) - len(groups)
        if fewer and all(len(group) == 1 or _can_share(group) for group in groups.values()):
            saved = sum(use.cost for use in alone) - sum(max(use.cost for use in group) for group in groups.values())
            return {"scope": scope, "databases": fewer, "seconds": saved}
    return None


def _can_share(uses: Sequence[Use]) -> bool:
    return all(use.afterwards == "keep" for use in uses) and len({use.template for use in uses}) == 1
