"""`seeddb init`, then `seeddb build` at once: what was written works as it is."""

from __future__ import annotations

import json
import re
import shutil
import textwrap
import uuid

import pytest
from command import Command

MODELS = """
    from sqlalchemy import MetaData
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

    class Base(DeclarativeBase):
        metadata = MetaData(schema="own_{own}")

    class Shop(Base):
        __tablename__ = "shop"
        id: Mapped[int] = mapped_column(primary_key=True)
"""
SQL = "-- migrate:up\nCREATE TABLE shop (id int);\nINSERT INTO shop VALUES (1);\n-- migrate:down\nDROP TABLE shop;\n"


@pytest.fixture
def files(tmp_path):
    """Lays files into a directory, and gives the command there."""

    def laid(**named):
        for name, text in named.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return Command(tmp_path)

    return laid


def settle(example, tmp_path, repository):
    """A copy of an example as it was before its authors knew of us: no table, no seeds, no dump."""
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*", "seeds.py", "seed-db*", "tests")
    shutil.copytree(repository / "examples" / example, tmp_path / example, ignore=ignored)
    project = tmp_path / example / "pyproject.toml"
    project.write_text(re.sub(r"(?ms)^\[tool\.seeddb.*?(?=^\[tool\.pytest)", "", project.read_text()))
    assert "seeddb]\n" not in project.read_text()
    return Command(tmp_path / example)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("example", "package"), [("quickstart", "shop"), pytest.param("fastapi_async", "app", marks=pytest.mark.long)]
)
def test_an_example_without_its_table_gets_one_that_builds_at_once(example, package, tmp_path, repository):
    seeddb = settle(example, tmp_path, repository)
    before = (seeddb.path / "pyproject.toml").read_text()
    planned = json.loads(seeddb("init", "--dry-run", "--json").stdout)
    assert (seeddb.path / "pyproject.toml").read_text() == before
    assert not (seeddb.path / package / "seeds.py").exists()
    done = seeddb("init")
    table = f"""
[tool.seeddb]
migrations = "alembic.ini"
seeds = ["{package}.seeds"]
engines = ["{package}.db:engine"]
env = "DATABASE_URL"
"""
    assert (seeddb.path / "pyproject.toml").read_text() == before + table
    assert [each["text"] for each in planned["files"]] == [(seeddb.path / package / "seeds.py").read_text(), table]
    assert done.stdout.endswith("\nnext     seeddb build\nnext     pytest --seed-db\n")
    assert re.search(rf"(?m)^found    (asynchronous )?engine +{package}\.db:engine$", done.stdout)
    assert done.stderr == ""
    built = seeddb("build")
    assert f"seed {package}.seeds:essential" in built.stderr
    assert f"seed {package}.seeds:demo" in built.stderr


@pytest.fixture
def dbmate(pytester):
    """SQL files and nothing else."""
    pytester.path.joinpath("db/migrations").mkdir(parents=True)
    pytester.path.joinpath("db/migrations/1_shop.sql").write_text(SQL + f"-- {uuid.uuid4()}\n")
    return Command(pytester.path)


@pytest.mark.slow
def test_sql_files_without_any_python_get_a_seeddb_toml_that_builds_at_once(dbmate):
    done = dbmate("init")
    assert "found    SQL migrations  db/migrations: 1 file, dbmate" in done.stdout
    assert (dbmate.path / "seeddb.toml").read_text() == 'migrations = "db/migrations"\nseeds = ["seeds"]\n'
    assert dbmate("build").stdout.startswith("template ")


@pytest.mark.long
def test_tests_run_at_once_on_what_it_wrote(dbmate, pytester):
    dbmate("init")
    pytester.makepyfile("def test_it(seeded_db): assert seeded_db.connect().execute('TABLE shop').fetchall() == [(1,)]")
    pytester.runpytest_subprocess("--seed-db", "-p", "no:cacheprovider", "-p", "no:asyncio").assert_outcomes(passed=1)


@pytest.mark.slow
def test_models_alone_get_a_table_that_builds_at_once(files):
    models = MODELS.format(own=uuid.uuid4().hex[:8])
    seeddb = files(**{"src/shop/__init__.py": "", "src/shop/models.py": models, "pyproject.toml": ""})
    assert "found    SQLAlchemy models without migrations  shop.models:Base.metadata" in seeddb("init").stdout
    assert "schema shop.models:Base.metadata" in seeddb("build").stderr


@pytest.mark.slow
def test_a_second_time_exits_with_2_names_the_file_and_changes_nothing(files):
    seeddb = files(**{"db/1.sql": "CREATE TABLE a ();", "pyproject.toml": "[project]\nname = 'x'\n"})
    seeddb("init")
    before = {path: path.read_bytes() for path in seeddb.path.rglob("*") if path.is_file()}
    for options in ([], ["--dry-run"], ["--json"]):
        done = seeddb("init", *options, code=2)
        assert done.stderr.startswith("seeddb: The project already has settings\n  saw:  [tool.seeddb] in ")
        assert str(seeddb.path / "pyproject.toml") in done.stderr
        assert bool(done.stdout) == ("--json" in options)
    assert {path: path.read_bytes() for path in seeddb.path.rglob("*") if path.is_file()} == before


def test_what_cannot_be_recognised_exits_with_1(files, tmp_path):
    seeddb = files(**{"pyproject.toml": ""})
    assert "The project has no migrations or models that seeddb recognises" in seeddb("init", code=1).stderr
    assert (tmp_path / "pyproject.toml").read_text() == ""


def test_another_directory_can_be_named(files, tmp_path):
    files(**{"inner/db/1.sql": "CREATE TABLE a ();"})("init", "-C", "inner")
    assert (tmp_path / "inner/seeddb.toml").exists()
