"""The machine goes down under the server: what was in use is thrown away, what was brought to the disk is kept."""

from __future__ import annotations

import json
import random
import re
import sys
import time
import uuid

import killing
import pytest
from attacks import times
from killing import strike


@pytest.fixture
def site():
    with killing.mortal_site() as site:
        yield site


def power_fails(site, choice, *, rows_alone=None):
    """As the next boot finds it: nobody lives, another boot, and files torn unless they had been synchronized.

    What says that they had been, says it of this very start: anything else is no promise, and all are torn.
    """
    strike(site.processes())
    site.is_quiet()
    site.lose_memory()
    for state in site.states:
        record = site.record()
        clean = state / "clean"
        kept = bool(record) and clean.exists() and clean.read_text() == record["token"]
        if record:
            (state / "server.json").write_text(json.dumps({**record, "boot": str(uuid.uuid4())}))
        if not kept:
            tear(state / "data", choice, rows_alone=choice.random() < 0.5 if rows_alone is None else rows_alone)
    tear_small_files(site, choice)
    return bool(site.states) and kept


def tear(data, choice, *, rows_alone):
    """Parts of what was written last never came to the disk.

    Either any files are torn, and no server starts on them; or rows alone are gone, and one does.
    """
    files = sorted(each for each in data.rglob("*") if each.is_file())
    rows = [each for each in files if each.parent.parent.name == "base" and re.match(r"\d{5}", each.name)]
    for path in rows if rows_alone else choice.sample(files, len(files) // 2):
        path.write_bytes(b"\0" * (path.stat().st_size if path in rows or choice.random() < 0.5 else 0))


def tear_small_files(site, choice):
    """A file that was renamed into its place and never synchronized may be empty; so may what a log holds."""
    for path in sorted(site.cache.glob("pytest-seeddb/*.json")):
        if choice.random() < 0.5:
            path.write_bytes(path.read_bytes()[: choice.randrange(path.stat().st_size + 1)])


def test_at_any_moment_the_next_run_has_a_sound_server(site, tried):
    seed = uuid.uuid4().int
    choice = random.Random(seed)
    peace = site.peace
    started = time.monotonic()
    site.passes()
    span = time.monotonic() - started
    counts = {"kept": 0, "thrown away": 0}
    for number in range(times(16, least=2)):
        if choice.random() < 0.3:
            site.seeddb("prune", "--all")
        run = site.begin()
        moment = choice.uniform(0, 1.2 * span)
        time.sleep(moment)
        kept = power_fails(site, choice)
        counts["kept" if kept else "thrown away"] += 1
        try:
            site.passes()
            assert site.standing() == peace
        except BaseException as error:
            error.add_note(f"seed {seed}, round {number}, after {moment:.3f} s, kept: {kept}\n{run.text}")
            raise
    tried(f"a power loss: {counts}", sum(counts.values()))


def cluster_of(state):
    """Which cluster the data are: initdb gives each a number of its own, where file systems give theirs again."""
    return (state / "data" / "global" / "pg_control").read_bytes()[:8]


def test_while_it_is_in_use_the_data_are_made_anew_and_after_its_end_they_are_kept(site, tried):
    choice = random.Random(uuid.uuid4().int)
    site.passes()
    site.is_quiet()
    (state,) = site.states
    before = cluster_of(state)
    assert power_fails(site, choice), "the guard had brought it to the disk"
    told = site.passes("-v")
    assert cluster_of(state) == before
    assert "built" not in told
    for number in range(times(4, least=2)):
        before = cluster_of(state)
        run = site.begin()
        assert site.caught("CREATE DATABASE", run), run.text
        assert not power_fails(site, choice, rows_alone=number % 2 == 0), "a server in use has no clean mark"
        site.passes()
        assert cluster_of(state) != before
    tried("a power loss in use, and one at rest", 1 + times(4, least=2))


def test_a_kill_without_a_power_loss_keeps_the_data(site, tried):
    """Else throwing everything away each time would pass for safety."""
    assert site.peace
    site.is_quiet()
    (state,) = site.states
    before = cluster_of(state)
    run = site.begin()
    assert site.caught("CREATE DATABASE", run), run.text
    strike(site.victims(run)["all"])
    site.is_quiet()
    left = site.outside()
    assert left["sockets"], "a killed server leaves it, and the census must see it"
    assert sys.platform != "linux" or all(left.values()), left
    site.passes()
    assert cluster_of(state) == before
    assert site.standing() == site.peace
    tried("everything killed and the data kept", 1)
