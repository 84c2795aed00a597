from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest

from pytest_seeddb.fingerprint import environment, lookups
from pytest_seeddb.fingerprint.digests import CHANGED_MEANWHILE, MISSING, Part, digest
from pytest_seeddb.fingerprint.recording import Recording, all_parts, begin, counted, current


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "project"
    root.mkdir()
    (root / "a.json").write_text("a")
    return root


def _names(recording):
    return [part.name for part in recording.parts()]


def test_a_file_that_is_read_counts_by_its_content(root):
    with Recording(root) as recording:
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
    with Recording(root) as recording:
        reading(str(root / "a.json"))
    assert _names(recording) == ["a.json"]


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX system")
def test_a_path_begins_at_the_descriptor_of_its_directory(root, tmp_path, monkeypatch):
    (root / "b.json").write_text("b")
    (tmp_path / "a.json").write_text("not the root's")
    monkeypatch.chdir(tmp_path)
    with Recording(root) as recording:
        directory = os.open(root, os.O_RDONLY)
        os.close(os.open("a.json", os.O_RDONLY, dir_fd=directory))
        with contextlib.suppress(FileNotFoundError):
            os.open("missing.json", os.O_RDONLY, dir_fd=directory)
        os.close(os.open("new.json", os.O_WRONLY | os.O_CREAT, dir_fd=directory))
        Path(root, "new.json").read_text()
        os.rename("b.json", "c.json", src_dir_fd=directory, dst_dir_fd=directory)
        Path(root, "c.json").read_text()
        os.close(directory)
    assert recording.parts() == (Part("a.json", digest("a")), Part("missing.json", MISSING))


def test_a_tree_that_is_removed_elsewhere_writes_nothing_here(root, tmp_path, monkeypatch):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/a.json").write_text("a")
    monkeypatch.chdir(root)
    with Recording(root) as recording:
        (root / "a.json").read_text()
        shutil.rmtree(tmp_path / "copy")  # by names in its directory's descriptor
    assert recording.parts() == (Part("a.json", digest("a")),)


def test_other_threads_are_seen(root):
    with Recording(root) as recording:
        thread = threading.Thread(target=(root / "a.json").read_text)
        thread.start()
        thread.join()
    assert _names(recording) == ["a.json"]


def test_nothing_is_recorded_before_or_after(root):
    (root / "b.json").write_text("b")
    (root / "a.json").read_text()
    with Recording(root) as recording:
        pass
    (root / "b.json").read_text()
    assert recording.parts() == ()


def test_files_elsewhere_do_not_count(root, tmp_path):
    (tmp_path / "other.json").write_text("x")
    (tmp_path / "project-2").mkdir()
    (tmp_path / "project-2" / "a.json").write_text("x")
    with Recording(root) as recording:
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
    with Recording(root) as recording:
        (root / name).read_text()
        (root / "a.json").read_text()
    assert _names(recording) == ["a.json"]


def test_a_directory_is_no_file(root):
    (root / "sub").mkdir()
    with Recording(root) as recording:
        os.close(os.open(root / "sub", os.O_RDONLY))
    assert recording.parts() == ()


@pytest.mark.parametrize("mode", ["w", "a", "r+", "x"])
def test_a_file_that_the_build_writes_itself_does_not_count(root, mode):
    path = root / "made.json"
    if mode != "x":
        path.write_text("old")
    with Recording(root) as recording:
        if mode != "x":
            path.read_text()
        with path.open(mode) as stream:
            stream.write("new")
        path.read_text()
    assert recording.parts() == ()


def test_a_file_that_the_build_moves_into_place_does_not_count(root):
    with Recording(root) as recording:
        (root / "temporary").write_text("x")
        (root / "temporary").replace(root / "made.json")
        (root / "made.json").read_text()
    assert recording.parts() == ()


def test_a_file_that_is_gone_at_the_end_does_not_count(root):
    with Recording(root) as recording:
        (root / "a.json").read_text()
        (root / "a.json").unlink()
    assert recording.parts() == ()


def test_a_file_that_somebody_else_changes_after_it_was_read_never_matches(root):
    with Recording(root) as recording:
        (root / "a.json").read_text()
        subprocess.run([sys.executable, "-c", "open('a.json', 'w').write('other')"], cwd=root, check=True)
    assert recording.parts() == (Part("a.json", CHANGED_MEANWHILE),)
    assert current(_names(recording), root) != recording.parts()


@pytest.mark.parametrize("path", ["gone.json", b"\xff", "sub/gone.json"])
def test_a_file_that_is_looked_for_and_not_there_counts(root, monkeypatch, path):
    monkeypatch.chdir(root)
    with Recording(root) as recording, pytest.raises(FileNotFoundError):
        open(path)  # noqa: PTH123, SIM115 - the built-in is what is tested, and it fails
    assert recording.parts() == (Part(os.fsdecode(path), MISSING),)
    assert current(_names(recording), root) == recording.parts()
    Path("sub").mkdir()
    Path(os.fsdecode(path)).write_text("x")
    assert current(_names(recording), root) != recording.parts()


def test_parts_are_there_after_a_failed_build(root):
    recording = Recording(root)
    with pytest.raises(RuntimeError):
        _fail_after_reading(recording, root / "a.json")
    assert _names(recording) == ["a.json"]


def _fail_after_reading(recording, path):
    with recording:
        path.read_text()
        raise RuntimeError


def test_recordings_may_overlap(root):
    (root / "b.json").write_text("b")
    with Recording(root) as outer:
        with Recording(root) as inner:
            (root / "a.json").read_text()
        (root / "b.json").read_text()
    assert (_names(inner), _names(outer)) == (["a.json"], ["a.json", "b.json"])


def test_a_root_behind_a_link_is_the_same_root(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    with Recording(tmp_path / "link") as recording:
        (root / "a.json").read_text()
        (tmp_path / "link/a.json").read_text()
    assert _names(recording) == ["a.json"]


@pytest.mark.parametrize("path", ["nul\0byte", "x" * 5000])
def test_an_opening_that_fails_fails_as_it_always_does(root, monkeypatch, path):
    monkeypatch.chdir(root)
    with Recording(root) as recording, pytest.raises((OSError, ValueError)):
        open(path)  # noqa: PTH123, SIM115 - the built-in is what is tested, and it fails
    assert recording.parts() == ()


def test_an_error_in_the_recording_never_reaches_the_opener(root, monkeypatch):
    monkeypatch.setattr("pytest_seeddb.fingerprint.recording.os.stat", None)
    with Recording(root):
        with (root / "a.json").open() as stream:
            assert stream.read() == "a"
        monkeypatch.undo()


def test_one_hook_serves_all_recordings(root, monkeypatch):
    added = []
    with Recording(root):
        pass
    monkeypatch.setattr(sys, "addaudithook", added.append)
    for _ in range(3):
        with Recording(root):
            pass
    assert added == []


def test_recorded_names_are_compared_with_the_files_as_they_are_now(root):
    with Recording(root) as recording:
        (root / "a.json").read_text()
    assert current(_names(recording), root) == recording.parts()
    (root / "a.json").write_text("b")
    assert current(_names(recording), root) == (Part("a.json", digest("b")),)
    (root / "a.json").unlink()
    assert current(_names(recording), root) == (Part("a.json", "missing"),)


def test_recorded_names_lead_nowhere_out_of_the_root(root, tmp_path):
    (tmp_path / "secret").write_text("x")
    names = ["../secret", str(tmp_path / "secret"), "nul\0byte", "sub/../../secret"]
    assert {part.digest for part in current(names, root)} == {"missing"}


# -- the project's own code ------------------------------------------------------------------------

OWN = """
import runpy
from pathlib import Path
HERE = Path(__file__).parent
def listed():
    return sorted(HERE.glob("*.json"))
def all_listed():
    return sorted(HERE.iterdir())
def executed():
    exec((HERE / "code.py").read_text())
def run():
    runpy.run_path(str(HERE / "code.py"))
def imported():
    import code_of_opened
def listed_by_descriptor():
    import os
    descriptor = os.open(HERE, os.O_RDONLY)
    try:
        return os.listdir(descriptor)
    finally:
        os.close(descriptor)
def walked():
    import os
    return [*os.fwalk(HERE)]
def matched(pattern):
    import glob
    return glob.glob(pattern, recursive=True)
def matched_below(pattern):
    import glob
    return glob.glob(pattern, root_dir=HERE)
def matched_of_path(pattern):
    return sorted(Path().glob(pattern))
def matched_deep(pattern):
    return sorted(Path("apps").rglob(pattern))
def read(name):
    return (HERE / name).read_bytes()
def looked_for(name):
    return (HERE / name).exists() or (HERE / name).is_dir()
def is_file(name):
    return (HERE / name).is_file()
def asked_for(name):
    import os
    return os.path.exists(name)
def asked_for_a_file(name):
    import os
    return os.path.isfile(os.fsencode(name))
def asked_for_a_directory(name):
    import os
    return os.path.isdir(HERE / name)
def translated(name):
    import gettext
    return gettext.find(name, ".", ["de"])
def which(name):
    import shutil
    return shutil.which(name, path=".")
def size(name):
    import os
    return os.path.getsize(name)
def size_of_path(name):
    return Path(name).stat().st_size
def is_same(name):
    import os
    return os.path.samefile(name, name)
def is_same_path(name):
    return Path(name).samefile(name)
def load_dotenv(name):
    import dotenv
    return dotenv.load_dotenv()
def env_file(name):
    from pydantic_settings import BaseSettings
    class Settings(BaseSettings, env_file=name):
        pass
    return Settings()
def selected(name):
    import sqlite3
    connection = sqlite3.connect(name, uri=True)
    try:
        return connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    finally:
        connection.close()
def listed_by_text():
    exec("import os; os.listdir(HERE)", {"HERE": HERE, "__name__": "x"})
"""


@pytest.fixture
def own(root, monkeypatch):
    """A module of the project."""
    (root / "own_of_opened.py").write_text(OWN)
    (root / "code.py").write_text("VALUE = 1")
    (root / "code_of_opened.py").write_text("VALUE = 1")
    monkeypatch.syspath_prepend(str(root))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield __import__("own_of_opened")
    for name in ("own_of_opened", "code_of_opened"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("how", ["listed", "all_listed"])
def test_a_directory_that_own_code_lists_counts_by_the_names_in_it(root, own, how):
    with Recording(root) as recording:
        getattr(own, how)()
    assert _names(recording) == [{"listed": "./ (*.json)", "all_listed": "./"}[how]]
    assert current(_names(recording), root) == recording.parts()
    (root / "test_more.py").write_text("")
    (root / "a.json").write_text("other")
    assert current(_names(recording), root) == recording.parts(), "tests, and what is in the files, make no difference"
    (root / "test_b.json").write_text("")
    assert current(_names(recording), root) != recording.parts()


@pytest.mark.parametrize(
    ("how", "pattern"),
    [
        *(("matched", pattern) for pattern in ("apps/*/seed.csv", "apps/**/seed.csv", "apps/x/seed.csv")),
        *(("matched", pattern) for pattern in ("*/x/seed.csv", "apps/x/*.csv", "*/x/s*.csv", "apps/x/")),
        *(("matched_below", pattern) for pattern in ("apps/*/seed.csv", "apps/x/seed.csv")),
        *(
            ("matched_of_path", pattern)
            for pattern in ("apps/*/seed.csv", "**/seed.csv", "*/x/seed.csv", "apps/x/*.csv")
        ),
        *(("matched_deep", pattern) for pattern in ("seed.csv", "x/seed.csv", "s*.csv")),
    ],
)
@pytest.mark.parametrize("there", ["apps/y", "apps/x"])
def test_a_file_that_a_pattern_would_find_counts_by_its_being_missing(root, own, monkeypatch, how, pattern, there):
    monkeypatch.chdir(root)
    Path(there).mkdir(parents=True)
    Path("apps/y/seed.csv" if there == "apps/y" else "apps/file").write_text("")
    with Recording(root) as recording:
        before = getattr(own, how)(pattern)
    assert current(_names(recording), root) == recording.parts()
    Path("apps/x").mkdir(exist_ok=True)
    Path("apps/x/seed.csv").touch()
    if getattr(own, how)(pattern) != before:
        assert current(_names(recording), root) != recording.parts()
    assert not any("file/" in name for name in _names(recording))


def test_a_directory_that_own_code_would_list_counts_by_its_being_missing(root, own, monkeypatch):
    monkeypatch.setattr(own, "HERE", root / "more")
    with Recording(root) as recording, contextlib.suppress(FileNotFoundError):
        own.all_listed()
    assert recording.parts() == (Part("more", MISSING),)
    (root / "more").mkdir()
    assert current(_names(recording), root) == (Part("more", "a directory"),)


LOOKS: Final = (
    *("looked_for", "is_file", "asked_for", "asked_for_a_file", "asked_for_a_directory", "load_dotenv", "env_file"),
    "which",
)


@pytest.mark.parametrize("how", LOOKS)
@pytest.mark.parametrize("before", [False, True])
def test_a_missing_file_that_own_code_asks_for_counts(root, own, monkeypatch, how, before):
    if how in {"load_dotenv", "env_file"}:
        pytest.importorskip({"load_dotenv": "dotenv", "env_file": "pydantic_settings"}[how])
    monkeypatch.chdir(root)
    if before:
        begin(root)
        getattr(own, how)(".env")
        parts = all_parts((), root, ["own_of_opened.py"])
    else:
        with Recording(root) as recording:
            getattr(own, how)(".env")
        parts = recording.parts()
    assert Part(".env", MISSING) in parts
    assert current([part.name for part in parts], root) == parts
    (root / ".env").mkdir() if how == "asked_for_a_directory" else (root / ".env").write_text("REGION=a")
    assert current([part.name for part in parts], root) != parts


@pytest.mark.parametrize("how", ["size", "size_of_path", "is_same", "is_same_path"])
def test_a_file_counts_whose_size_own_code_asks_for(root, own, monkeypatch, how):
    monkeypatch.chdir(root)
    (root / "data.bin").write_text("one")
    with Recording(root) as recording:
        getattr(own, how)("data.bin")
        assert own.is_file("a.json")
    assert _names(recording) == ["data.bin"], "and none of which it asks only whether it is there"


def test_a_catalogue_of_messages_that_is_missing_counts(root, own, monkeypatch):
    monkeypatch.chdir(root)
    with Recording(root) as recording:
        own.translated("shop")
    assert "de/LC_MESSAGES/shop.mo" in _names(recording)


def test_a_missing_file_does_not_count_if_the_code_makes_it_or_others_ask_or_the_name_may_be_a_secret(
    root, own, monkeypatch
):
    monkeypatch.setenv("SIGNING_KEY", "d0f55c")
    monkeypatch.chdir(root)
    with Recording(root) as recording:
        shutil.which("own_of_opened", path=str(root))
        Path("others.json").exists()
        own.looked_for("made")
        Path("made").mkdir()
        for name in (
            '{"client": "shop"}',
            "d0f55c",
            "postgresql://u:hush@h/shop",
            "a\nb",
            "x" * 2000,
            "sk_live_" + "51H8aKq9" * 4,
        ):
            assert not own.asked_for(name)
        own.looked_for("a.json")
        for name in ("", "gone/../a.json"):  # what is there by the name that counts
            own.asked_for(name)
            own.matched(name)
    assert recording.parts() == ()


def test_questions_about_files_are_answered_as_always(root, monkeypatch):
    begin(root)
    assert os.stat in os.supports_dir_fd
    assert os.stat.__module__ in {"posix", "nt"}
    assert os.path.exists(os.open(root, os.O_RDONLY))  # noqa: PTH110 - this is what is tested, as below
    assert not os.path.exists("nul\0byte")  # noqa: PTH110
    with pytest.raises(FileNotFoundError, match=r"gone\.json"):
        (root / "gone.json").stat(follow_symlinks=False)
    with monkeypatch.context() as fake:
        fake.setattr(lookups, "os", None)  # as pyfakefs replaces the name in all modules, but not in os.path
        assert os.path.exists(root)  # noqa: PTH110
    monkeypatch.setattr(os, "stat", lambda *_, **__: (_ for _ in ()).throw(PermissionError))
    assert not os.path.exists(root)  # noqa: PTH110


def test_a_directory_that_executed_text_lists_counts_like_one_that_own_code_lists(root, own):
    with Recording(root) as recording:
        own.listed_by_text()
    assert recording.parts() == current(["./"], root)


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX system")
@pytest.mark.parametrize("how", ["listed_by_descriptor", "walked"])
def test_a_directory_that_is_listed_by_its_descriptor_counts(root, own, how):
    with Recording(root) as recording:
        getattr(own, how)()
    assert recording.parts() == current(["./"], root)


def test_own_code_lists_whatever_tool_its_name_begins_like(root, monkeypatch):
    package = root / "pytest_coverages"
    package.mkdir()
    (package / "__init__.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(root))
    module = __import__("pytest_coverages")
    with Recording(root) as recording:
        module.all_listed()
    sys.modules.pop("pytest_coverages")
    assert recording.parts() == current(["pytest_coverages/"], root)


@pytest.mark.parametrize("name", ["types.pyi", "blob.dll", ".coverage_map.json"])
def test_a_file_that_own_code_reads_is_data_whatever_its_suffix(root, own, name):
    (root / name).write_text("x")
    with Recording(root) as recording:
        own.read(name)
    assert recording.parts() == (Part(name, digest("x")),)
    with Recording(root) as recording:
        (root / name).read_text()
    assert _names(recording) == ([name] if name.endswith(".json") else [])


@pytest.mark.parametrize("form", ["{}", "file:{}?mode=ro", "file://{}"])
def test_a_database_of_sqlite_counts_unless_it_is_made_or_changed(root, own, form):
    path = root / "a b.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE a (b)")
    given = form.format(quote(str(path)) if form != "{}" else path)
    with Recording(root) as recording:
        assert own.selected(given) == [(1,)]
        own.selected(":memory:")
        own.selected(str(root / "made.db"))
    assert recording.parts() == current(["a b.db"], root)
    with Recording(root) as recording, contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE c (d)")
    assert recording.parts() == ()


def test_a_directory_that_others_list_does_not(root):
    with Recording(root) as recording:
        os.listdir(root)  # noqa: PTH208 - the event is what is tested
    assert recording.parts() == ()


def test_a_name_that_the_build_made_in_a_listed_directory_belongs_to_it(root, own):
    with Recording(root) as recording:
        own.all_listed()
        (root / "made").mkdir()
        (root / "made.json").write_text("")
    assert recording.parts() == current(["./"], root)


def test_a_name_that_somebody_else_made_in_it_never_matches(root, own):
    with Recording(root) as recording:
        own.all_listed()
        subprocess.run(["touch", "other.json"], cwd=root, check=True)
    assert recording.parts() == (Part("./", CHANGED_MEANWHILE),)


@pytest.mark.parametrize("how", ["executed", "run"])
def test_code_that_own_code_reads_like_data_counts(root, own, how):
    with Recording(root) as recording:
        getattr(own, how)()
    assert _names(recording) == ["code.py"]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("code.py", "import code_of_opened\n"),
        ("code_of_opened.py", "VALUE = 2"),
        ("read.json", "2"),
        ("code_of_opened/__init__.py", "VALUE = 2"),
    ],
    ids=[
        "it is edited",
        "what it imports is edited",
        "what that read at import is edited",
        "a package comes before it",
    ],
)
def test_what_executed_code_imports_counts_although_it_was_imported_before(root, own, path, text):
    (root / "code.py").write_text("import code_of_opened")
    (root / "code_of_opened.py").write_text(
        "from pathlib import Path\nVALUE = Path(__file__).with_name('read.json').read_text()"
    )
    (root / "read.json").write_text("1")
    begin(root)
    own.imported()
    with Recording(root) as recording:
        own.executed()
    built = all_parts(recording.parts(), root, ["own_of_opened.py"])
    names = [part.name for part in built]
    assert current(names, root) == built
    (root / path).parent.mkdir(exist_ok=True)
    (root / path).write_text(text)
    assert current(names, root) != built


def test_a_module_that_a_source_loaded_by_whatever_means_counts_for_those_that_have_the_source(root, own):
    begin(root)
    own.imported()
    assert [part.name for part in all_parts((), root, ["own_of_opened.py"])] == ["code_of_opened.py"]
    assert all_parts((), root, ["own_of_opened.py", "code_of_opened.py"]) == ()


def test_code_that_is_imported_does_not(root, own):
    with Recording(root) as recording:
        own.imported()
    assert recording.parts() == ()


def test_what_a_source_read_before_a_build_counts_for_those_that_have_the_source(root, own):
    begin(root)
    own.run()
    assert [part.name for part in all_parts((), root, ["own_of_opened.py"])] == ["code.py"]
    assert all_parts((), root, ["another.py"]) == ()


def test_a_source_that_was_edited_after_it_was_loaded_never_matches(root, own):
    begin(root)
    own.imported()
    assert all_parts((), root, ["code_of_opened.py"]) == ()
    (root / "code_of_opened.py").write_text("VALUE = 12")
    assert all_parts((), root, ["code_of_opened.py"]) == (Part("code_of_opened.py", CHANGED_MEANWHILE),)


# -- environment variables ----------------------------------------------------------------------------

ASKS = """
import os, string
from collections import ChainMap
def subscript(): return os.environ["ASKED"]
def get(): return os.environ.get("ASKED")
def getenv(): return os.getenv("ASKED")
def contains(): return "ASKED" in os.environ
def setdefault(): return os.environ.setdefault("ASKED", "1")
def format_map(): return "{ASKED}".format_map(os.environ)
def expandvars(): return os.path.expandvars("$ASKED")
def bytes_(): return os.environb[b"ASKED"]
def getenvb(): return os.getenvb(b"ASKED")
def chained(): return ChainMap({}, os.environ, {"ASKED": "2"})["ASKED"]
def got_of_chained(): return ChainMap({}, os.environ).get("ASKED")
def in_chained(): return "ASKED" in ChainMap({}, os.environ)
def template(): return string.Template("$ASKED").substitute(os.environ)
def safe_template(): return string.Template("${ASKED}").safe_substitute(os.environ, OTHER="1")
def formatter(): return string.Formatter().vformat("{ASKED}", (), os.environ)
def pydantic_1():
    from pydantic.v1 import BaseSettings
    class Settings(BaseSettings):
        asked: str
        class Config:
            case_sensitive = False
    return Settings().asked
def all_of_chained(): return dict(ChainMap({}, os.environ)), {**ChainMap(os.environ)}, [*ChainMap(os.environ).items()]
def all_bytes(): return dict(os.environb), os.environb.copy()
def items(): return [*os.environ.items()]
def as_dict(): return dict(os.environ), {**os.environ}, os.environ | {}
def copied(): return os.environ.copy()
def walked(): return [os.environ[name] for name in os.environ if name.startswith("ASK")]
def child():
    import subprocess, sys
    subprocess.run(["true"], env={**os.environ, "MORE": "1"}, check=True)
    subprocess.run(["true"], check=True)
"""


@pytest.fixture
def asks(root, monkeypatch):
    monkeypatch.setenv("ASKED", "1")
    monkeypatch.setattr("pytest_seeddb.fingerprint.environment._first", {})
    (root / "asks_for_names.py").write_text(ASKS)
    monkeypatch.syspath_prepend(str(root))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield __import__("asks_for_names")
    sys.modules.pop("asks_for_names", None)


@pytest.mark.parametrize(
    "how",
    [
        *("subscript", "get", "getenv", "contains", "setdefault", "format_map", "expandvars", "bytes_", "getenvb"),
        *("chained", "got_of_chained", "in_chained", "template", "safe_template", "formatter"),
    ],
)
def test_a_variable_that_own_code_asks_for_by_name_counts(root, asks, how):
    for _ in range(2):  # the same line again
        with Recording(root) as recording:
            getattr(asks, how)()
        assert _names(recording) == ["environment variable ASKED"]
        assert current(_names(recording), root) == recording.parts()


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="pydantic.v1 supports Python up to 3.13")
def test_a_field_of_the_first_pydantics_settings_counts(root, asks):
    pytest.importorskip("pydantic.v1")
    with Recording(root) as recording:
        asks.pydantic_1()
    assert _names(recording) == ["environment variable ASKED (any case)"]


@pytest.mark.parametrize("how", ["items", "as_dict", "copied", "walked", "child", "all_of_chained", "all_bytes"])
def test_going_through_the_whole_environment_counts_nothing(root, asks, how):
    with Recording(root) as recording:
        getattr(asks, how)()
    assert recording.parts() == ()


def test_a_variable_that_others_ask_for_does_not_count(root):
    with Recording(root) as recording:
        os.environ.get("ASKED")
    assert recording.parts() == ()


@pytest.mark.parametrize("name", ["HOME", "CI", "GITHUB_SHA", "SEEDDB_SERVER", "PYTEST_XDIST_WORKER", "SHOP_LOG"])
def test_variables_of_the_machine_and_ignored_ones_never_count(root, name):
    part = Part(environment.variable(name), "1")
    assert counted([part, Part("a.json", "2")], ["SHOP_*"]) == (Part("a.json", "2"),)


@pytest.mark.parametrize(
    ("name", "value"),
    [("SHOP_PASSWORD", "123456"), ("DB_PASS", "123456"), ("SHOP_URL", "postgresql://me:123456@here/shop")],
)
def test_a_variable_with_a_secret_is_one(name, value):
    part = environment.part(environment.variable(name), {name: value})
    assert part == Part(environment.variable(name), "set", value)
    assert value not in repr(part)


def test_variables_that_match_a_pattern_in_any_case_count_together():
    name = environment.variable("SHOP_DB__*", any_case=True)
    assert environment.part(name, {"OTHER": "1"}) == Part(name, environment.NOT_SET)
    one = environment.part(name, {"shop_db__name": "1"})
    assert one != environment.part(name, {"shop_db__name": "2"})


# -- files elsewhere -----------------------------------------------------------------------------------


@pytest.fixture
def reads_elsewhere(root, tmp_path, monkeypatch):
    """A module of the project that reads a file whose path it is given."""
    (root / "reads_elsewhere.py").write_text(
        "def read(path, mode='r'):\n    with open(path, mode) as file: file.read()\n"
    )
    monkeypatch.syspath_prepend(str(root))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield __import__("reads_elsewhere").read
    sys.modules.pop("reads_elsewhere", None)


def test_a_file_in_the_repository_around_the_root_counts(root, tmp_path, reads_elsewhere):
    (tmp_path / ".git").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.json").write_text("a")
    with Recording(root) as recording:
        reads_elsewhere(tmp_path / "data/a.json")
    assert recording.parts() == (Part("../data/a.json", digest("a")),)
    assert current(_names(recording), root) == recording.parts()
    (tmp_path / "data/a.json").write_text("b")
    assert current(_names(recording), root) != recording.parts()


@pytest.mark.parametrize("of", ["a file", "a directory"])
def test_a_file_behind_a_link_counts_although_the_code_resolved_it(root, tmp_path, reads_elsewhere, of):
    (tmp_path / "away").mkdir()
    (tmp_path / "away/x.json").write_text("x")
    if of == "a file":
        (root / "linked.json").symlink_to(tmp_path / "away/x.json")
        name = "linked.json"
    else:
        (root / "linked").symlink_to(tmp_path / "away")
        name = "linked/x.json"
    with Recording(root) as recording:
        reads_elsewhere((root / name).resolve())
    assert recording.parts() == (Part(name, digest("x")),)
    assert current(_names(recording), root) == recording.parts()


def test_a_file_of_an_editable_dependency_counts(root, tmp_path, reads_elsewhere, monkeypatch):
    library = tmp_path / "library"
    (library / "src/lib").mkdir(parents=True)
    (library / "pyproject.toml").touch()
    (library / "src/lib/data.json").write_text("1")
    monkeypatch.syspath_prepend(str(library / "src"))
    with Recording(root) as recording:
        reads_elsewhere(library / "src/lib/data.json")
    assert recording.parts() == (Part("../library/src/lib/data.json", digest("1")),)
    assert current(_names(recording), root) == recording.parts()


def test_a_file_that_was_opened_to_be_updated_and_was_not_counts(root, reads_elsewhere):
    with Recording(root) as recording:
        reads_elsewhere(root / "a.json", "r+")
    assert recording.parts() == (Part("a.json", digest("a")),)
