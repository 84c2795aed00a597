"""Killed at any moment, the next run works and cleans up, and nothing half-built is ever used."""

from __future__ import annotations

import killing
import pytest
from striking import Attack, struck


@pytest.fixture(scope="module")
def site():
    with killing.mortal_site() as site:
        yield site


@pytest.fixture
def emptied(site):
    """A server that has to build everything again."""

    def emptied():
        site.seeddb("prune", "--all")

    return emptied


def test_in_a_cold_build(site, tried):
    attack = Attack(site, before=site.forget)
    struck(attack, attack.at_random(attack.span()), 25, tried, "killed in a cold build")


def test_in_a_build(site, emptied, tried):
    attack = Attack(site, before=emptied)
    struck(attack, attack.at_random(attack.span()), 35, tried, "killed in a build")


def test_in_a_warm_run(site, tried):
    attack = Attack(site)
    struck(attack, attack.at_random(attack.span()), 45, tried, "killed in a warm run")


def test_under_xdist(site, tried):
    attack = Attack(site, ["-n", "2"])
    struck(attack, attack.at_random(attack.span()), 15, tried, "killed under xdist")


STATEMENTS = {
    "make a clone": 'CREATE DATABASE "seeddb_c',
    "drop a clone": 'DROP DATABASE IF EXISTS "seeddb_c',
    "rewind a clone": "^(TRUNCATE|COPY|DELETE|VACUUM)",
    "fill a build": "^(CREATE TABLE|CREATE INDEX|INSERT)",
    "finish a build": "^VACUUM .*FREEZE",
    "publish a build": "^(COMMENT ON DATABASE|ALTER DATABASE)",
}


@pytest.mark.parametrize("what", STATEMENTS)
def test_in_the_moment_that_they(site, emptied, tried, what):
    attack = Attack(site, before=emptied if what.endswith("build") else lambda: None)
    struck(attack, attack.while_it(STATEMENTS[what]), 8, tried, f"killed as they {what}")


def test_in_the_shut_down(site, tried):
    attack = Attack(site)
    struck(attack, attack.after_its_end(0.1), 20, tried, "killed in the shut-down")
