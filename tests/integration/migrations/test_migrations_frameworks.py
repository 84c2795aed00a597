"""Applications of Flask in `migrations`: what its extensions would run. The pages on frameworks run as tests, too."""

from __future__ import annotations

import uuid

import psycopg
import pytest

from pytest_seeddb.errors import BuildError, ConfigError
from pytest_seeddb.migrations.sources import stages
from pytest_seeddb.plan.plan import Target
from pytest_seeddb.settings.settings import Settings

APPLICATION = """
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase): ...

db = SQLAlchemy(model_class=Base)

class Store(db.Model):
    id: Mapped[int] = mapped_column(primary_key=True)

def create_app(name: str = __name__):
    app = Flask(name, root_path=ROOT)
    app.config["SQLALCHEMY_DATABASE_URI"] = "postgresql+psycopg2://nobody@nowhere.invalid/none"
    INITIALISE
    return app

app = create_app()
"""
REVISION = """
from alembic import op
revision, down_revision, branch_labels = "0001", None, ("default",)
def upgrade():
    op.execute("CREATE TABLE made_by_alembic (id int)")
"""

PATHS = "app.config['ALEMBIC'] = {'path_separator': 'os'}"  # else some versions warn


@pytest.fixture
def migrate(tmp_path, empty_database):
    pytest.importorskip("flask_sqlalchemy")

    def migrate(initialise, attribute="create_app"):
        name = f"shop_{uuid.uuid4().hex}"
        text = APPLICATION.replace("ROOT", repr(str(tmp_path))).replace("INITIALISE", initialise)
        (tmp_path / f"{name}.py").write_text(text)
        (stage,) = stages(Settings(root=tmp_path, migrations=f"{name}:{attribute}"))
        stage.run(Target(empty_database, tmp_path, ("SHOP_URL",)), 0)
        with psycopg.connect(empty_database.conninfo) as connection:
            rows = connection.execute("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")
            return {relname for (relname,) in rows}

    return migrate


@pytest.mark.parametrize("attribute", ["create_app", "app"])
def test_flask_sqlalchemy_alone_makes_its_tables(attribute, migrate):
    assert "store" in migrate("db.init_app(app)", attribute)


OWN = "app.config['SQLALCHEMY_DATABASE_URI'] = {url!r}; db.init_app(app)"
CREATOR = (
    "app.config['SQLALCHEMY_ENGINE_OPTIONS'] = "
    "{{'creator': lambda: __import__('psycopg2').connect({url})}}; db.init_app(app)"
)


def test_an_engine_that_leads_to_the_applications_own_database_is_refused(migrate, tmp_path, server_address):
    with pytest.raises(ConfigError, match="not for PostgreSQL"):
        migrate(OWN.format(url=f"sqlite:///{tmp_path}/own.db"))
    assert not (tmp_path / "own.db").exists()
    with pytest.raises(ConfigError, match="cannot be redirected") as caught:
        migrate(CREATOR.format(url=repr(server_address.url)))
    assert "create_app" in caught.value.source
    with psycopg.connect(server_address.conninfo) as connection:
        assert connection.execute("SELECT to_regclass('store')").fetchone() == (None,)
    assert "store" in migrate(CREATOR.format(url="__import__('os').environ['SHOP_URL']"))


def test_a_configuration_of_advanced_alchemy_for_another_database_is_refused(tmp_path, empty_database):
    pytest.importorskip("advanced_alchemy")
    (tmp_path / "alchemy_shop.py").write_text(
        "from advanced_alchemy.config import SQLAlchemySyncConfig\n"
        f"config = SQLAlchemySyncConfig(connection_string='sqlite:///{tmp_path}/own.db')\n"
    )
    (stage,) = stages(Settings(root=tmp_path, migrations="alchemy_shop:config"))
    with pytest.raises(ConfigError, match="not for PostgreSQL"):
        stage.run(Target(empty_database, tmp_path), 0)
    assert not (tmp_path / "own.db").exists()


def test_flask_alembic_runs_its_revisions(migrate, tmp_path):
    pytest.importorskip("flask_alembic")
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "0001.py").write_text(REVISION)
    lines = ["db.init_app(app)", "from flask_alembic import Alembic", PATHS, "Alembic().init_app(app)"]
    assert {"made_by_alembic", "alembic_version"} <= migrate("; ".join(lines))


def test_an_application_without_a_database_is_told(migrate):
    with pytest.raises(ConfigError, match="has no database") as caught:
        migrate("pass")
    assert "initialise Flask-Migrate" in caught.value.remedy


def test_a_failing_revision_is_told_with_its_line(migrate, tmp_path):
    pytest.importorskip("flask_alembic")
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "0001.py").write_text(REVISION.replace("id int", "id nothing"))
    lines = ["db.init_app(app)", "from flask_alembic import Alembic", PATHS, "Alembic().init_app(app)"]
    with pytest.raises(BuildError, match=r"failed at migrations/0001.py:5") as caught:
        migrate("; ".join(lines))
    assert 'type "nothing" does not exist' in caught.value.saw
