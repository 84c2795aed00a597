from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pytest_seeddb.fingerprint import Part, digest
from pytest_seeddb.inputs.opened import CHANGED_MEANWHILE, OpenedFiles, current


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "project"
    root.mkdir()
    (root / "a.json").write_text("a")
    return root


def _names(recording):
    return [part.name for part in recording.parts()]


def test_a_file_that_is_read_counts_by_its_content(root):
    with OpenedFiles(root) as recording:
        (root / "a.json").read_text()
    assert recording.parts() == (Part("a.json", digest("a")),)


@pytest.mark.parametrize(
    "reading",
    [
        lambda path: Path(path).read_bytes(),
        lambda path: open(os.fsencode(path)).close(),  # noqa: PTH123 - the built-in is what is tested
        lambda path: os.close(os.open(path, os.O_RDONLY)),
        lambda path: os.close(os.open(Path(path), os.O_RDONLY)),
        lambda path: open(os.open(path, os.O_RDONLY)).close(),  # noqa: PTH123 - the built-in is what is tested
        lambda path: open(os.path.relpath(path)).close(),  # noqa: PTH123 - the built-in is what is tested
        lambda path: open(f"{Path(path).parent}/../project/a.json").close(),  # noqa: PTH123 - the built-in is what is tested
    ],
)
def test_every_way_to_open_is_seen(root, reading):
    with OpenedFiles(root) as recording:
        reading(str(root / "a.json"))
    assert _names(recording) == ["a.json"]


def test_other_threads_are_seen(root):
    with OpenedFiles(root) as recording:
        thread = threading.Thread(target=(root / "a.json").read_text)
        thread.start()
        thread.join()
    assert _names(recording) == ["a.json"]


def test_nothing_is_recorded_before_or_after(root):
    (root / "b.json").write_text("b")
    (root / "a.json").read_text()
    with OpenedFiles(root) as recording:
        pass
    (root / "b.json").read_text()
    assert recording.parts() == ()


def test_files_elsewhere_do_not_count(root, tmp_path):
    (tmp_path / "other.json").write_text("x")
    (tmp_path / "project-2").mkdir()
    (tmp_path / "project-2" / "a.json").write_text("x")
    with OpenedFiles(root) as recording:
        (tmp_path / "other.json").read_text()
        (tmp_path / "project-2" / "a.json").read_text()
    assert recording.parts() == ()


@pytest.mark.parametrize(
    "name",
    [
        *("code.py", "code.pyc", "lib.so", "__pycache__/x.json", ".git/HEAD", ".venv/data.json"),
        *(".pytest_cache/v/x", "node_modules/x.json", "x.egg-info/PKG-INFO", ".coverage", "env/share/data.json"),
    ],
)
def test_code_caches_and_environments_do_not_count(root, name):
    (root / "env").mkdir()
    (root / "env/pyvenv.cfg").write_text("")
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("x")
    with OpenedFiles(root) as recording:
        (root / name).read_text()
        (root / "a.json").read_text()
    assert _names(recording) == ["a.json"]


def test_a_directory_is_no_file(root):
    (root / "sub").mkdir()
    with OpenedFiles(root) as recording:
        os.close(os.open(root / "sub", os.O_RDONLY))
    assert recording.parts() == ()


@pytest.mark.parametrize("mode", ["w", "a", "r+", "x"])
def test_a_file_that_the_build_writes_itself_does_not_count(root, mode):
    path = root / "made.json"
    if mode != "x":
        path.write_text("old")
    with OpenedFiles(root) as recording:
        if mode != "x":
            path.read_text()
        with path.open(mode) as stream:
            stream.write("new")
        path.read_text()
    assert recording.parts() == ()


def test_a_file_that_the_build_moves_into_place_does_not_count(root):
    with OpenedFiles(root) as recording:
        (root / "temporary").write_text("x")
        (root / "temporary").replace(root / "made.json")
        (root / "made.json").read_text()
    assert recording.parts() == ()


def test_a_file_that_is_gone_at_the_end_does_not_count(root):
    with OpenedFiles(root) as recording:
        (root / "a.json").read_text()
        (root / "a.json").unlink()
    assert recording.parts() == ()


def test_a_file_that_somebody_else_changes_after_it_was_read_never_matches(root):
    with OpenedFiles(root) as recording:
        (root / "a.json").read_text()
        subprocess.run([sys.executable, "-c", "open('a.json', 'w').write('other')"], cwd=root, check=True)
    assert recording.parts() == (Part("a.json", CHANGED_MEANWHILE),)
    assert current(_names(recording), root) != recording.parts()


def test_parts_are_there_after_a_failed_build(root):
    recording = OpenedFiles(root)
    with pytest.raises(RuntimeError):
        _fail_after_reading(recording, root / "a.json")
    assert _names(recording) == ["a.json"]


def _fail_after_reading(recording, path):
    with recording:
        path.read_text()
        raise RuntimeError


def test_recordings_may_overlap(root):
    (root / "b.json").write_text("b")
    with OpenedFiles(root) as outer:
        with OpenedFiles(root) as inner:
            (root / "a.json").read_text()
        (root / "b.json").read_text()
    assert (_names(inner), _names(outer)) == (["a.json"], ["a.json", "b.json"])


def test_a_root_behind_a_link_is_the_same_root(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    with OpenedFiles(tmp_path / "link") as recording:
        (root / "a.json").read_text()
        (tmp_path / "link/a.json").read_text()
    assert _names(recording) == ["a.json"]


@pytest.mark.parametrize("path", ["gone.json", b"\xff", "nul\0byte", "x" * 5000])
def test_an_opening_that_fails_fails_as_it_always_does(root, monkeypatch, path):
    monkeypatch.chdir(root)
    with OpenedFiles(root) as recording, pytest.raises((OSError, ValueError)):
        open(path)  # noqa: PTH123, SIM115 - the built-in is what is tested, and it fails
    assert recording.parts() == ()


def test_an_error_in_the_recording_never_reaches_the_opener(root, monkeypatch):
    monkeypatch.setattr("pytest_seeddb.inputs.opened.os.stat", None)
    with OpenedFiles(root):
        with (root / "a.json").open() as stream:
            assert stream.read() == "a"
        monkeypatch.undo()


def test_one_hook_serves_all_recordings(root, monkeypatch):
    added = []
    with OpenedFiles(root):
        pass
    monkeypatch.setattr(sys, "addaudithook", added.append)
    for _ in range(3):
        with OpenedFiles(root):
            pass
    assert added == []


def test_recorded_names_are_compared_with_the_files_as_they_are_now(root):
    with OpenedFiles(root) as recording:
        (root / "a.json").read_text()
    assert current(_names(recording), root) == recording.parts()
    (root / "a.json").write_text("b")
    assert current(_names(recording), root) == (Part("a.json", digest("b")),)
    (root / "a.json").unlink()
    assert current(_names(recording), root) == (Part("a.json", "missing"),)


def test_recorded_names_lead_nowhere_out_of_the_root(root, tmp_path):
    (tmp_path / "secret").write_text("x")
    names = ["../secret", str(tmp_path / "secret"), "nul\0byte", ".", "sub/../../secret"]
    assert {part.digest for part in current(names, root)} == {"missing"}
