"""`seeded_session` is of the application's own class, whatever it keeps its factory in."""

from __future__ import annotations

import sys
import uuid

import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from pytest_seeddb.application.sessions import new_async_session, new_session
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.settings.settings import Settings

APPLICATION = """
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

engine = create_engine("postgresql+psycopg2://nobody@nowhere.invalid/production")
async_engine = create_async_engine("postgresql+asyncpg://nobody@nowhere.invalid/production")

class Own(Session): ...

class Routing(Own):
    def get_bind(self, *arguments, **options):
        return engine

class OwnAsync(AsyncSession):
    sync_session_class = Routing

Maker = sessionmaker(engine, class_=Own, autoflush=False, binds={})
Router = sessionmaker(class_=Routing, info={"tenant": 1})
Scoped = scoped_session(Maker)
AsyncMaker = async_sessionmaker(async_engine, class_=OwnAsync, expire_on_commit=True)
AsyncScoped = async_scoped_session(AsyncMaker, scopefunc=lambda: 1)

class Config:  # as those of Advanced Alchemy
    def create_session_maker(self): return Maker
    def get_engine(self): return engine
config = Config()

class Extension:  # as that of Flask-SQLAlchemy
    session = Scoped
db = Extension()
number = 7
"""


@pytest.fixture
def settings(tmp_path):
    name = f"application_{uuid.uuid4().hex}"
    (tmp_path / f"{name}.py").write_text(APPLICATION)

    def settings(session=(), engines=()):
        paths = {"session": session, "engines": engines}
        return Settings(root=tmp_path, **{key: tuple(f"{name}:{one}" for one in value) for key, value in paths.items()})

    yield settings
    sys.modules.pop(name, None)


@pytest.fixture
def engine():
    return create_engine("postgresql+psycopg://seeddb_c@/clone")


@pytest.fixture
def async_engine():
    return create_async_engine("postgresql+psycopg://seeddb_c@/clone")


def base_of(session):
    return [cls.__name__ for cls in type(session).__mro__]


@pytest.mark.parametrize("named", ["Maker", "Scoped", "config", "db"])
@pytest.mark.parametrize("key", ["session", "engines"])
def test_a_factory_s_class_and_options_on_the_test_s_engine(key, named, settings, engine):
    with new_session(settings(**{key: [named]}), engine) as session:
        assert "Own" in base_of(session)
        assert session.get_bind() is engine
        assert not session.autoflush


@pytest.mark.parametrize("named", ["Routing", "Router"])
def test_a_class_that_chooses_between_engines_gets_the_test_s(named, settings, engine):
    with new_session(settings([named]), engine) as session:
        assert "Routing" in base_of(session)
        assert session.get_bind() is engine
        assert session.info == ({"tenant": 1} if named == "Router" else {})


@pytest.mark.parametrize("named", ["AsyncMaker", "AsyncScoped", "OwnAsync"])
def test_an_asynchronous_one(named, settings, async_engine):
    session = new_async_session(settings(["Maker", named]), async_engine)
    assert "OwnAsync" in base_of(session)
    assert session.bind is async_engine
    assert session.sync_session.get_bind() is async_engine.sync_engine
    assert "Routing" in base_of(session.sync_session)
    assert session.sync_session.expire_on_commit is (named != "OwnAsync")


def test_a_factory_of_the_other_kind_leaves_sqlalchemy_s(settings, engine, async_engine, monkeypatch):
    monkeypatch.delitem(sys.modules, "sqlmodel", raising=False)
    assert type(new_session(settings(["AsyncMaker"], ["engine"]), engine)) is Session
    session = new_async_session(settings(engines=["Maker"]), async_engine)
    assert type(session) is AsyncSession
    assert not session.sync_session.expire_on_commit


def test_the_setting_goes_before_the_engines_and_both_before_sqlmodel(settings, engine, async_engine):
    sqlmodel = pytest.importorskip("sqlmodel")
    assert "Own" in base_of(new_session(settings(["Maker"], ["Router"]), engine))
    assert type(new_session(settings(engines=["engine"]), engine)) is sqlmodel.Session
    assert hasattr(new_async_session(settings(), async_engine), "exec")


def test_what_is_no_factory_is_refused_with_its_place(settings, engine):
    with pytest.raises(ConfigError, match="This is not a session factory") as caught:
        new_session(settings(["number"]), engine)
    assert caught.value.saw == "a value of the type int"
    assert ":number' of " in caught.value.source
