from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from pytest_seeddb.fingerprint.atomic import beside, free_name

HOLD = """
import sys
from pathlib import Path
from pytest_seeddb.fingerprint.atomic import beside
with beside(Path(sys.argv[1]), directory=sys.argv[2] == "directory") as partial:
    print(partial, flush=True)
    sys.stdin.read()
"""
KINDS = pytest.mark.parametrize("kind", ["file", "directory"])


@pytest.fixture
def holder(tmp_path):
    started = []

    def start(kind):
        line = [sys.executable, "-c", HOLD, str(tmp_path / "it.sql"), kind]
        started.append(subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1], started[-1].stdout.readline().strip()

    yield start
    for each in started:
        each.kill()
        each.communicate()


def names(place):
    return sorted(each.name for each in place.iterdir())


@KINDS
def test_what_a_killed_process_left_is_removed_by_the_next(holder, tmp_path, kind):
    process, _ = holder(kind)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(names(tmp_path)) == 1
    with beside(tmp_path / "it.sql") as partial:
        assert names(tmp_path) == [partial.name]
    assert names(tmp_path) == []


@KINDS
def test_what_a_living_process_writes_stays_however_old_it_is(holder, tmp_path, kind):
    _, name = holder(kind)
    os.utime(name, (0, 0))
    with beside(tmp_path / "it.sql"):
        assert len(names(tmp_path)) == 2
    assert names(tmp_path) == [os.path.basename(name)]  # noqa: PTH119 - a string from a pipe


def test_what_is_named_in_another_way_stays(tmp_path):
    others = [".it.sql.part", "it.sql.0.part", ".other.sql.0.part", ".it.sql"]
    for name in others:
        (tmp_path / name).touch()
    with beside(tmp_path / "it.sql"):
        pass
    assert names(tmp_path) == sorted(others)


def test_a_name_with_wildcards_stands_for_itself_alone(tmp_path):
    bystander = free_name(tmp_path / "it.sql")
    bystander.touch()
    with beside(tmp_path / "i[t].sql"), beside(tmp_path / "*"):
        assert bystander.exists()


def test_many_who_write_at_once_do_not_take_each_others_for_abandoned(tmp_path):
    failures = []

    def writes(number):
        try:
            for _ in range(100):
                with beside(tmp_path / "it.sql") as partial:
                    partial.write_text(str(number))
                    assert partial.read_text() == str(number)
                    partial.replace(tmp_path / "it.sql")
        except Exception as error:  # noqa: BLE001 - carried to the main thread
            failures.append(error)

    threads = [threading.Thread(target=writes, args=[number]) for number in range(4)]
    [each.start() for each in threads]
    [each.join() for each in threads]
    assert failures == []
    assert names(tmp_path) == ["it.sql"]
