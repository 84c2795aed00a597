"""Progress of `seeddb build`: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading

import pytest

BAR = "━"
COLOUR = re.compile(r"\x1b\[[0-9;]*[1-9][0-9;]*m")


BUILD = """
import sys, time, types
from pytest_seeddb.cli.output import make_progress
progress = make_progress()
progress.waiting("somebody else is at work")
progress.begin(types.SimpleNamespace(name="shop", profile="demo", unusual=list), "migrations", 2)
for name in ("one [bold]", "two"):
    progress.step(types.SimpleNamespace(name=name))
    print("said by", name)
    time.sleep(0.25)  # it is drawn ten times a second
progress.end()
print("rich" in sys.modules)
"""


def on_a_terminal(command, **environment):
    """Runs it with a terminal as its standard error; gives what that showed, the standard output, and the code."""
    ours, theirs = os.openpty()
    options = {"stdout": subprocess.PIPE, "text": True, **command}
    options["env"] = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", **environment}
    process = subprocess.Popen(**options, stderr=theirs)
    os.close(theirs)
    shown = []
    reader = threading.Thread(target=lambda: shown.extend(iter(lambda: read(ours), b"")))
    reader.start()
    output, _ = process.communicate(timeout=60)
    reader.join(10)
    os.close(ours)
    return b"".join(shown).decode(), output, process.returncode


def drawn(**environment):
    return on_a_terminal({"args": [sys.executable, "-W", "error", "-c", BUILD]}, **environment)


def built(seeddb):
    return on_a_terminal({"args": [sys.executable, "-m", "pytest_seeddb.cli", "build"], "cwd": seeddb.path})


def read(descriptor):
    try:
        return os.read(descriptor, 4096)
    except OSError:  # Linux says so when the other end is closed
        return b""


@pytest.mark.slow
def test_on_a_terminal_a_bar_is_drawn_and_the_cursor_comes_back(seeddb):
    shown, output, code = built(seeddb)
    assert code == 0
    assert BAR in shown
    assert COLOUR.search(shown)
    assert "building little-shop/default: migrations" in shown
    assert "building little-shop/default: essential seeds" in shown
    assert "2/2" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert output.startswith("template little-shop/default built in ")


@pytest.mark.slow
def test_a_failing_step_leaves_its_bar_where_it_was_and_the_error_in_full(seeddb, project):
    project.write("db/002_more.sql", "INSERT INTO shpo VALUES (1);")
    shown, _, code = built(seeddb)
    assert code == 1
    assert "2/3" in shown
    assert "3/3" not in shown
    assert "seeddb: db/002_more.sql, line 1: the statement failed" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


@pytest.mark.slow
def test_what_a_step_prints_stays_on_standard_output_and_names_are_shown_as_they_are():
    shown, output, _ = drawn()
    assert output == "said by one [bold]\nsaid by two\nTrue\n"
    assert "one [bold]" in shown
    assert "waiting: somebody else is at work" in shown


@pytest.mark.slow
def test_no_color_draws_it_without_colours():
    shown, _, _ = drawn(NO_COLOR="1")
    assert BAR in shown
    assert not COLOUR.search(shown)


@pytest.mark.parametrize("terminal", ["dumb", ""])
def test_a_terminal_that_cannot_draw_gets_lines_and_rich_is_not_even_imported(terminal):
    shown, output, _ = drawn(TERM=terminal)
    assert "\x1b" not in shown
    assert re.search(r"building shop/demo: migrations\r\n  1/2 one \[bold\] \(0\.\d s\)\r\n  2/2 two", shown)
    assert output.endswith("False\n")


@pytest.mark.slow
def test_piped_it_is_lines_whatever_the_terminal_is_called(seeddb):
    seeddb.environment |= {"TERM": "xterm-256color", "FORCE_COLOR": "1"}
    lines = seeddb("build").stderr.splitlines()
    assert lines[0] == "building little-shop/default: migrations"
    assert re.fullmatch(r"  1/2 migration db/000_own\.sql \(\d+\.\d s\)", lines[1])
    assert not any("\x1b" in line or BAR in line for line in lines)
