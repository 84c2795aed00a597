"""Client programs are found wherever there are any, of the version that can do the work."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_seeddb.errors import ServerError
from pytest_seeddb.servers.programs import find_program
from pytest_seeddb.settings.settings import Settings

ROOT = Path("/")


@pytest.fixture
def installation(tmp_path):
    """Lay out a directory of programs, which only tell their version."""

    def make(name, version, *programs):
        directory = tmp_path / name
        directory.mkdir()
        for program in programs or ("psql", "pg_restore"):
            script = directory / program
            script.write_text(f"#!/bin/sh\necho '{program} (PostgreSQL) {version} (Debian)'\n")
            script.chmod(0o755)
        return directory

    return make


def found(name="psql", **wanted):
    binaries_setting = wanted.pop("binaries", None)
    return find_program(Settings(root=ROOT, binaries=binaries_setting), name, **wanted)


def test_the_first_is_taken_where_any_will_do(installation, only):
    first, second = installation("a", "16.4"), installation("b", "17.2")
    only(first, second)
    program = found()
    assert (program.path, program.version, program.major) == (first / "psql", "16.4", 16)


def test_that_of_the_servers_version_goes_before_those_that_come_earlier(installation, only):
    first, second = installation("a", "16.4"), installation("b", "17.2")
    only(first, second)
    assert found(wanted=17).path == second / "psql"


def test_the_newest_is_taken_where_none_has_the_wanted_version(installation, only):
    places = [installation("a", "16.4"), installation("b", "18.1"), installation("c", "17.2")]
    only(*places)
    assert found(wanted=15).version == "18.1"


def test_one_that_is_too_old_to_read_the_file_is_passed_over(installation, only):
    places = [installation("a", "15.4"), installation("b", "17.2")]
    only(*places)
    assert found("pg_restore", wanted=15, least=16).version == "17.2"


def test_the_setting_goes_first_and_what_it_lacks_is_sought_elsewhere(installation, only):
    named, other = installation("a", "17.1", "psql"), installation("b", "17.2")
    only(other)
    assert found(binaries=named, wanted=17).path == named / "psql"
    assert found("pg_restore", binaries=named, wanted=17).path == other / "pg_restore"


def test_a_script_that_chooses_a_version_itself_comes_last(installation, only, tmp_path):
    chooser = installation("share", "18.0", "pg_wrapper")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "psql").symlink_to(chooser / "pg_wrapper")
    only(tmp_path / "bin", installation("real", "16.4"))
    assert found().version == "16.4"
    only(tmp_path / "bin")
    assert found().path == tmp_path / "bin" / "psql"


def test_a_program_that_cannot_be_run_is_passed_over(installation, only):
    broken, fine = installation("a", "16.4"), installation("b", "16.5")
    (broken / "psql").write_text("#!/bin/sh\nexit 1\n")
    only(broken, fine)
    assert found(least=15).path == fine / "psql"


def test_the_error_names_what_is_needed_what_for_and_every_place(installation, only):
    only(installation("a", "15.4"))
    with pytest.raises(ServerError) as caught:
        found("pg_restore", wanted=15, least=17, why="the dump seed-db.dump")
    text = str(caught.value)
    for part in ("There is no pg_restore of version 17 or newer on this machine", "PATH: 15.4", "pg_config: nothing"):
        assert part in text
    assert "from: the dump seed-db.dump" in text
    assert "apt-get install postgresql-client-17" in text
