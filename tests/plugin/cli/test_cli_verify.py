"""`seeddb verify` says which seeder is unsound, and how; scripts see it by the exit code."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SEEDERS = """
    import time
    from sqlalchemy import text
    from pytest_seeddb import seeder

    INSERT = text("INSERT INTO shop (name) VALUES (:name)")

    @seeder(idempotent=True)
    def first(session):
        session.execute(text("INSERT INTO shop (name) VALUES ('first') ON CONFLICT DO NOTHING"))

    @seeder(tier="demo", after=[first])
    def shops(session, shops: int = 3):
        print("printed by a seeder")
        for number in range(shops):
            session.execute(INSERT, {"name": f"shop {number}"})
"""
UNSOUND = """
    @seeder(tier="demo", idempotent=True, after=[shops])
    def timed(session):
        session.execute(INSERT, {"name": f"at {time.time()}"})
"""


@pytest.fixture
def verify(project):
    project.seeders()

    def run(*options, code, more=""):
        project.write("little/seeds.py", SEEDERS + more)
        line = [sys.executable, "-W", "error", "-m", "pytest_seeddb.cli", "verify", *options]
        done = subprocess.run(line, cwd=project.path, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    return run


@pytest.mark.slow
def test_sound_seeds_are_told_with_their_rows_and_it_ends_well(verify):
    output = verify(code=0)
    assert "seed little.seeds:first: 1 shop, " in output
    assert "seed little.seeds:shops: 3 shop, " in output
    assert "  run again, it fails" in output, "it claims nothing, so that is no fault"
    assert "little-shop/default: sound" in output
    assert "printed by a seeder" not in output


@pytest.mark.slow
def test_an_unsound_seeder_is_named_with_its_rows_and_it_ends_badly(verify):
    output = verify(code=1, more=UNSOUND)
    assert "seed little.seeds:timed: 1 shop" in output
    assert "  not the same each time: shop" in output
    assert '    - {"id": 5, "name": "at ' in output
    assert "  is declared idempotent=True but is not: run again, it makes other rows" in output
    assert "little-shop/default: 1 unsound" in output


NUMBERED = """
    import factory
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

    class Base(DeclarativeBase): pass

    class Shop(Base):
        __tablename__ = "shop"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]

    class ShopFactory(factory.alchemy.SQLAlchemyModelFactory):
        class Meta:
            model = Shop
            sqlalchemy_get_or_create = ["name"]
        name = factory.Sequence(lambda n: f"numbered {n}")

    @seeder(tier="demo", idempotent=True, after=[shops])
    def numbered(session): ShopFactory.create_batch(2)

    @seeder(tier="demo", idempotent=True, after=[numbered])
    def more(session): ShopFactory.create_batch(2)
"""


@pytest.mark.slow
def test_a_seeder_that_runs_again_draws_the_same_numbers_from_its_sequences(verify):
    output = verify(code=0, more=NUMBERED)
    assert "seed little.seeds:more: 2 shop" in output
    assert "little-shop/default: sound" in output


@pytest.mark.slow
def test_json_holds_all_of_it(verify):
    found = json.loads(verify("--json", code=1, more=UNSOUND))
    assert found["dump"] is None
    assert [each["step"] for each in found["seeds"]["seeders"] if each["unlike"]] == ["seed little.seeds:timed"]


def test_without_a_dump_in_the_settings_asking_for_it_alone_is_wrong_usage(verify):
    verify("--dump", code=2)
