from __future__ import annotations

import getpass
import json
from urllib.parse import quote, quote_plus

import pytest

from pytest_seeddb import errors as concealment
from pytest_seeddb.errors import ConfigError, conceal, hide_secrets, mask
from pytest_seeddb.servers.address import Address
from pytest_seeddb.settings.settings import Found, load_settings

LONG = "kan4rie@/: %'\"\\é#7"
WRITTEN = {
    "plain": LONG,
    "in a URL": quote(LONG, safe=""),
    "in a URL's query": quote_plus(LONG),
    "by repr": repr(LONG)[1:-1],
    "by repr of a libpq string": repr(LONG.replace("\\", "\\\\").replace("'", "\\'"))[1:-1],
    "in JSON": json.dumps(LONG)[1:-1],
    "in bytes, by repr": repr(LONG.encode())[2:-1],
    "in a URL, by repr of bytes": repr(quote(LONG, safe="é").encode())[2:-1],
}


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(concealment, "_spellings", set())


@pytest.mark.parametrize("text", WRITTEN.values(), ids=WRITTEN)
def test_a_known_secret_is_hidden_in_every_spelling_and_in_the_midst_of_words(text):
    conceal(LONG)
    assert hide_secrets(f"x{text}y") == "x***y"
    assert mask(f"nobody answers: {text}.") == "nobody answers: ***."


@pytest.mark.parametrize("kept", range(4, len(LONG)))
def test_what_was_cut_shows_neither_its_beginning_nor_its_end(kept):
    conceal(LONG)
    assert hide_secrets(f"a='{LONG[:kept]}...{LONG[-kept:]}'") == "a='...'"


def test_a_short_secret_is_hidden_as_a_word_of_its_own_only():
    conceal("shop")
    assert hide_secrets("shop, shops, workshop, shop_1: 'shop'") == "***, shops, workshop, shop_1: '***'"


@pytest.mark.parametrize("word", ["", "abc", "postgres", "Secret", "changeme"])
def test_what_is_too_short_or_what_everybody_tries_first_stays_readable(word):
    conceal(word)
    assert hide_secrets(f"the role {word} of PostgreSQL") == f"the role {word} of PostgreSQL"


def test_a_password_that_is_also_the_users_name_stays_readable():
    Address.parse("postgresql://shop_app:shop_app@db/shop", source="here")
    Address.parse("postgresql://app:shop_base@db/shop_base", source="here")
    assert mask('role "shop_app" of shop_base') == 'role "shop_app" of shop_base'


def test_secrets_in_lists_and_tables_are_hidden_too():
    conceal({"a": ["first-secret", b"second-secret"], "b": (123456789,)})
    assert hide_secrets("first-secret second-secret 123456789") == "*** *** ***"


def test_a_password_in_a_url_is_known_once_the_url_was_read():
    Address.parse("postgresql://app:s3cret%20w0rd@db/shop", source="here")
    assert mask("cannot log in with s3cret w0rd") == "cannot log in with ***"


def test_the_environments_password_is_known(tmp_path):
    load_settings(tmp_path, environ={"PGPASSWORD": "s3cret-w0rd"})
    assert mask("cannot log in with s3cret-w0rd") == "cannot log in with ***"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://app:s3c@ret@db/shop",
        "postgresql://app:12/s3c@db/shop",
        "postgresql://app:12/s3c@db:5432/shop?x=1",
        "postgresql://app@server:s3c@db/shop",
    ],
)
def test_a_url_of_which_a_part_of_the_password_would_be_the_host_is_refused_without_showing_it(url):
    with pytest.raises(ConfigError) as caught:
        Address.parse(url, source="here")
    assert "%40 for @" in caught.value.remedy
    assert [word for word in ("s3c", "ret", "12") if word in str(caught.value).replace("secret", "")] == []


@pytest.mark.parametrize("key", ["profil", "profiles", "profile", "demo"])
def test_a_table_at_the_wrong_place_shows_no_value_of_a_parameter(tmp_path, key):
    table = {"demo": {"pin": "s3c"}, "pin": "s3c"}
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path, options={"profiles": Found(table, "here")})
    assert caught.value.saw == "{'demo': {...}, 'pin': ...}"
    (tmp_path / "seeddb.toml").write_text(f"[{key}]\npin = 's3c'\n[{key}.demo]\npin = 's3c'\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path)
    assert "s3c" not in str(caught.value)


def test_a_misspelt_variable_does_not_show_its_value(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path, environ={"SEEDDB_SEDS": "s3c"})
    assert caught.value.saw == "SEEDDB_SEDS"


def test_a_service_is_read_when_the_url_is_so_that_it_leads_no_child_to_its_own_database(tmp_path, monkeypatch):
    from pytest_seeddb.servers.address import environment_for

    (tmp_path / "services").write_text("[shop]\nhost=db.example\nport=5433\ndbname=production\npassword=s3cret-w0rd\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    address = Address.parse("postgresql://app@/clone?service=shop", source="here")
    assert (address.database, address.params["host"], address.params["port"]) == ("clone", "db.example", "5433")
    told = environment_for(address)
    assert (told["PGDATABASE"], told["PGPASSWORD"]) == ("clone", "s3cret-w0rd")
    assert "PGSERVICE" not in told
    assert "service" not in told["DATABASE_URL"]
    assert "s3cret" not in mask("with s3cret-w0rd")


def test_reading_a_service_leaves_the_environment_alone(tmp_path, monkeypatch):
    (tmp_path / "services").write_text("[shop]\nhost=db.example\nsslmode=verify-full\nchannel_binding=require\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    monkeypatch.setenv("PGSERVICE", "shop")
    for change in ("putenv", "unsetenv"):
        monkeypatch.setattr(f"os.{change}", lambda *_arguments: pytest.fail("the environment was changed"))
    params = Address.parse("postgresql:///clone", source="here").params
    monkeypatch.undo()
    assert params == {
        "host": "db.example",
        "dbname": "clone",
        "sslmode": "verify-full",
        "channel_binding": "require",
    }


@pytest.mark.parametrize(
    ("service", "database"),
    [
        ("host=db.example\nuser=app", ""),
        (f"user={getpass.getuser()}", ""),
        ("user=app\ndbname=app", "app"),
        (f"user={getpass.getuser()}\ndbname={getpass.getuser()}", getpass.getuser()),
    ],
)
def test_a_service_names_a_database_only_where_its_file_does(tmp_path, monkeypatch, service, database):
    (tmp_path / "services").write_text(f"[shop]\n{service}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    assert Address.parse("postgresql:///?service=shop", source="here").database == database
    monkeypatch.setenv("PGSERVICE", "shop")
    assert Address.parse("postgresql:///", source="here").database == database


def test_a_service_that_is_not_there_is_left_to_libpq_to_complain_about(tmp_path, monkeypatch):
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "none"))
    assert Address.parse("postgresql:///clone?service=shop", source="here").params["service"] == "shop"


def test_a_child_has_the_password_that_only_the_environment_knows(monkeypatch):
    from pytest_seeddb.servers.address import environment_for

    for name, value in {"PGPASSWORD": "s3cret", "PGPASSFILE": "/x", "PGHOSTADDR": "1.2.3.4", "PGSERVICE": "x"}.items():
        monkeypatch.setenv(name, value)
    told = environment_for(Address({"host": "db", "user": "app", "dbname": "clone"}))
    assert (told["PGPASSWORD"], told["PGPASSFILE"]) == ("s3cret", "/x")
    assert not {"PGHOSTADDR", "PGSERVICE"} & set(told)
