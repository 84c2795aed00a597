"""Where clones are made, by the setting and by what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_seeddb.errors import ServerError
from pytest_seeddb.servers import memory, storage
from pytest_seeddb.servers.memory import Memory
from pytest_seeddb.servers.places import Account
from pytest_seeddb.servers.storage import Storage, storage_of
from pytest_seeddb.settings.settings import Settings

USER = Account("ada", 1000, 1000)
SLOW, QUICK = 0.4, 0.01


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """A directory in the place of /dev/shm, on another file system than the cache; systemd is not there."""
    place = tmp_path / "shm"
    place.mkdir()
    monkeypatch.setattr(storage, "PARENT", place)
    monkeypatch.setattr(storage, "_is_same_device", lambda *_: False)
    monkeypatch.setattr(storage, "_SYSTEMD", tmp_path / "systemd")
    monkeypatch.setattr(storage, "_LINGER", tmp_path / "linger")
    monkeypatch.setattr(storage, "_LOGIND", [str(tmp_path / "usr"), str(tmp_path / "etc")])
    return place


def of(wanted, cache, databases=None):
    settings = Settings(root=Path("/"), storage=wanted, sources={"storage": "the table"})
    return storage_of(settings, cache, USER, databases)


def test_a_setting_decides_without_measuring(shared, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_probe", None)
    assert of("memory", tmp_path, tmp_path) == Storage(in_memory=True, why="the table")
    assert of("disk", tmp_path, tmp_path) == Storage(in_memory=False, why="the table")


@pytest.mark.parametrize(
    ("disk", "in_memory"), [(SLOW, True), (QUICK, False), (2.9 * QUICK, False), (3.1 * QUICK, True)]
)
def test_auto_measures_once_after_each_start_of_the_machine(shared, tmp_path, monkeypatch, disk, in_memory):
    boot, probed = ["one"], []

    def probe(place):
        probed.append(place)
        return QUICK if place == shared else disk

    monkeypatch.setattr(storage, "boot_id", lambda: boot[0])
    monkeypatch.setattr(storage, "_probe", probe)
    assert of("auto", tmp_path) == Storage(in_memory=False, why="not measured since the machine was started")
    measured = of("auto", tmp_path, tmp_path / "base")
    assert measured.in_memory is in_memory
    assert f"in {disk * 1000:.0f} ms on the disk, 10 in memory" in str(measured)
    assert of("auto", tmp_path) == of("auto", tmp_path, tmp_path / "base") == measured
    assert probed == [tmp_path / "base", shared]
    boot[0] = "two"
    assert not of("auto", tmp_path).in_memory
    of("auto", tmp_path, tmp_path / "base")
    assert len(probed) == 4
    (tmp_path / storage.MEASURED).write_text("[]")
    assert not of("auto", tmp_path).in_memory


def test_the_probe_leaves_nothing(tmp_path):
    assert storage._probe(tmp_path) > 0
    assert list(tmp_path.iterdir()) == []


def test_where_systemd_removes_a_users_files_auto_stays_on_the_disk(shared, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_probe", lambda place: QUICK if place == shared else SLOW)
    monkeypatch.setattr(storage, "boot_id", lambda: "one")
    assert of("auto", tmp_path, tmp_path).in_memory
    (tmp_path / "systemd").mkdir()
    assert of("auto", tmp_path, tmp_path) == Storage(
        in_memory=False, why=f"systemd removes files in {shared} when ada logs out"
    )
    assert of("memory", tmp_path).in_memory
    (tmp_path / "etc" / "logind.conf.d").mkdir(parents=True)
    (tmp_path / "etc" / "logind.conf.d" / "50-own.conf").write_text("[Login]\n#RemoveIPC=yes\nRemoveIPC=no\n")
    assert of("auto", tmp_path).in_memory
    (tmp_path / "etc" / "logind.conf.d" / "60-own.conf").write_text("[Login]\nRemoveIPC = yes\n")
    assert not of("auto", tmp_path).in_memory
    (tmp_path / "linger").mkdir()
    (tmp_path / "linger" / "ada").touch()
    assert of("auto", tmp_path).in_memory


def test_a_machine_without_a_place_in_memory(shared, tmp_path):
    shared.rmdir()
    assert of("auto", tmp_path, tmp_path) == Storage(
        in_memory=False, why=f"{shared} is not there, or cannot be written to"
    )
    with pytest.raises(ServerError) as caught:
        of("memory", tmp_path)
    assert str(shared) in caught.value.saw
    assert caught.value.source == "the table"


def test_a_place_in_memory_that_is_too_small(shared, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_LEAST", 2**60)
    assert str(of("auto", tmp_path, tmp_path)).startswith(f"clones beside the templates: {shared} has ")
    assert of("memory", tmp_path).in_memory


def test_data_in_memory_are_not_put_there_again(shared, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_is_same_device", lambda *_: True)
    monkeypatch.setattr(storage, "_probe", None)
    assert of("auto", tmp_path, tmp_path) == Storage(in_memory=False, why="the data directory is in memory itself")


@pytest.mark.parametrize(
    ("free", "clones", "fits"),
    [(400, 0, True), (264, 0, True), (200, 0, False), (200, 3, False), (2000, 3, True)],
)
def test_clones_take_a_quarter_of_what_is_free(tmp_path, monkeypatch, free, clones, fits):
    for number in range(clones):
        (tmp_path / "PG_18" / str(number)).mkdir(parents=True)
    (tmp_path / "PG_18" / "pgsql_tmp").mkdir(parents=True)
    monkeypatch.setattr(memory, "find", lambda *_: tmp_path)
    monkeypatch.setattr(Memory, "_free", lambda *_: free * 2**20)
    notes: list[str] = []
    place = Memory(tmp_path, USER, notes)
    assert [place.tablespace_for(40 * 2**20) for _ in range(2)] == [memory.TABLESPACE if fits else memory.DISK] * 2
    assert len(notes) == (not fits)


@pytest.mark.parametrize(
    ("line", "files", "limit"),
    [
        ("0::/here/deep", {"here/memory.max": "1000", "here/deep/memory.max": "max"}, 1000),
        ("0::/elsewhere", {"memory.max": "1000"}, 1000),
        ("4:cpu,memory:/here", {"memory/here/memory.limit_in_bytes": "1000"}, 1000),
        ("4:memory:/here", {"memory/here/memory.limit_in_bytes": str(2**63 - 4096)}, None),
    ],
)
def test_the_limits_of_cgroups_count(tmp_path, monkeypatch, line, files, limit):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
        for used, number in (("memory.current", "600"), ("memory.usage_in_bytes", "600")):
            (tmp_path / name).with_name(used).write_text(f"{number}\n")
        (tmp_path / name).with_name("memory.stat").write_text("anon 1\ninactive_file 100\ntotal_inactive_file 100\n")
    (tmp_path / "cgroup").write_text(f"{line}\n")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    limits = memory._limits(tmp_path / "cgroup")
    assert [number for number, *_ in limits] == ([limit] if limit else [])
    place = Memory(tmp_path, USER, [])
    place._limits = limits
    assert (place._free(tmp_path) == 500) is bool(limit)
