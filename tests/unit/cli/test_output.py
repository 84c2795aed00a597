"""What `seeddb` prints, and where, as far as that needs no server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from pytest_seeddb.cli import main
from pytest_seeddb.cli.parser import make_parser

TABLE = """
[tool.seeddb]
name = "shop"
seeds = ["shop_seeds"]
profile = "large"
[tool.seeddb.profiles.large]
stores = 7
pin = "s3cret-9"
hook = "https://bot:s3cret-7@example.com"
smtp = {user = "x", password = "s3cret-6"}
"""
SEEDS = """
from typing import Annotated
from pytest_seeddb import Param, seeder

@seeder(idempotent=True)
def roles(session, pin: Annotated[str, Param(secret=True)] = "s3cret-8"): ...

@seeder(tier="demo", after=[roles])
def stores(
    session, stores: int = 3, cities: list[str] = ["x"], hook="x", smtp=None, dsn="postgresql://u:s3cret-5@h/d"
): ...
"""


@pytest.fixture
def shop(tmp_path, monkeypatch):
    (tmp_path / "seeddb.toml").write_text(TABLE.replace("[tool.seeddb]\n", "").replace("tool.seeddb.", ""))
    (tmp_path / "shop_seeds.py").write_text(SEEDS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "title", "do"),
    [
        (["seeds", "--profile", "lrge"], "There is no profile 'lrge'", "Did you mean 'large'?"),
        (["explain", "--digest", "--profile", "lrge"], "There is no profile 'lrge'", "Did you mean 'large'?"),
        (["biuld"], "Did you mean 'build'?", "see seeddb --help"),
        (["status", "--set", "token=s3cret"], "unrecognized arguments: --set token=...", "see seeddb status --help"),
        (
            ["build", "--reseeed"],
            "unrecognized arguments: --reseeed. Did you mean '--reseed'?",
            "see seeddb build --help",
        ),
    ],
)
def test_a_failure_with_json_is_the_four_parts_of_the_error_on_standard_output(shop, capsys, arguments, title, do):
    assert main([*arguments, "--json"]) == 2
    output, errors = capsys.readouterr()
    error = json.loads(output)["error"]
    assert error.keys() == {"title", "saw", "from", "do"}
    assert title in error["title"]
    assert do in error["do"]
    assert title in errors, "people read it there"


def test_the_digest_is_alone_on_standard_output_as_text_and_as_json(shop, capsys):
    assert main(["explain", "--digest", "-q"]) == 0
    digest = capsys.readouterr().out.strip()
    assert main(["explain", "--digest", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"digest": digest}


def test_seeds_lists_seeders_tiers_parameters_and_profiles_and_no_secret(shop, capsys):
    assert main(["seeds"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0].startswith("profile large (`profile` in ")
    assert any(line.startswith("large stores = 7, pin = ***") for line in lines), lines
    assert any(line.startswith("shop_seeds:roles essential idempotent shop_seeds.py:") for line in lines), lines
    assert "stores 7 a whole number profile 'large' shop_seeds:stores" in lines
    assert main(["seeds", "--json", "--profile", "essential"]) == 0
    output = capsys.readouterr().out
    roles, stores = json.loads(output)["seeders"]
    assert (roles["runs"], stores["runs"], stores["after"]) == (True, False, ["shop_seeds:roles"])
    assert stores["parameters"][0] == {
        "name": "stores",
        "takes": "a whole number",
        "value": "3",
        "from": "its default",
        "is_secret": False,
    }
    assert "s3cret" not in output + "".join(lines)


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"pytest-seeddb {version('pytest-seeddb')}\n"


def test_quiet_and_verbose_stand_before_or_after_the_command():
    parser = make_parser()
    for arguments in (["-q", "build"], ["build", "-q"]):
        parsed = parser.parse_args(arguments)
        assert (parsed.quiet, parsed.verbose) == (True, False)


def run(*arguments, **options):
    return subprocess.Popen([sys.executable, "-m", "pytest_seeddb.cli", *arguments], stderr=subprocess.PIPE, **options)


@pytest.mark.parametrize("arguments", [["seeds", "--json"], ["seeds"], ["apply", "--help"], ["--version"]])
def test_a_pipe_that_its_reader_has_closed_ends_quietly(shop, arguments, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    reading, writing = os.pipe()
    os.close(reading)
    process = run(*arguments, stdout=writing)
    os.close(writing)
    assert process.communicate(timeout=30)[1] == b""
    assert process.returncode == 0


LINES = ("seeddb bui", "seeddb apply --dry", "seeddb build --profile la", "seeddb completion z")
COMPLETE = {
    "bash": r"""
source <(seeddb completion bash)
for line in "$@"; do
    COMP_LINE=$line COMP_POINT=${#line} COMP_TYPE=9 COMP_WORDS=($line) COMPREPLY=()
    _python_argcomplete seeddb
    echo "${line% *} ${COMPREPLY[@]}"
done
""",
    # A shell with a terminal, in which the keys are pressed; ^Y prints the line as it stands.
    "zsh": r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'source <(seeddb completion zsh); show() { print -r -- $BUFFER >> lines; BUFFER= }; zle -N show'
zpty -w shell 'bindkey "^Y" show'
for line in "$@"; do zpty -w -n shell $line$'\t\x19'; done
until [[ -f lines && $(wc -l < lines) -eq $# ]]; do zpty -r -t shell; sleep 0.1; done >> output
cat lines
""",
    "fish": r"""
seeddb completion fish | source
for line in $argv
    echo (string replace -r ' [^ ]*$' '' $line) (complete -C $line | string split -f 1 \t)
end
""",
}


@pytest.mark.slow
@pytest.mark.parametrize(("shell", "options"), [("bash", ["--norc"]), ("zsh", ["-f"]), ("fish", ["--no-config"])])
def test_a_shell_completes_commands_options_and_profiles(shop, shell, options):
    program = shutil.which(shell) or pytest.skip(f"needs {shell}")
    (shop / "complete").write_text(COMPLETE[shell])
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(shop)}
    command = [program, *options, "complete", *LINES]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=60)
    assert [line.strip() for line in done.stdout.splitlines()] == [
        "seeddb build",
        "seeddb apply --dry-run",
        "seeddb build --profile large",
        "seeddb completion zsh",
    ]
