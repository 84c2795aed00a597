from __future__ import annotations

from urllib.parse import unquote

import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import make_url

from pytest_seeddb.errors import ConfigError
from pytest_seeddb.servers.address import Address

SECRET = "s3c:r@t/%?#&='\\ ü"

ADDRESSES = {
    "plain": {"host": "db", "port": "5432", "user": "app", "password": SECRET, "dbname": "shop"},
    "nothing but a database": {"dbname": "shop"},
    "nothing": {},
    "no password": {"host": "db", "user": "app"},
    "a password without a user": {"host": "db", "password": SECRET, "dbname": "shop"},
    "a socket": {"host": "/tmp/a b", "port": "5433", "user": "postgres", "dbname": "postgres"},
    "an abstract socket": {"host": "@seeddb", "user": "postgres", "dbname": "postgres"},
    "IPv6": {"host": "2001:db8::1", "port": "5432", "user": "app", "dbname": "shop"},
    "several hosts": {"host": "one,two", "port": "5432,5433", "user": "app", "dbname": "shop"},
    "strange names": {"host": "db", "user": "a:b@c/d", "password": "x", "dbname": "sh/op?x=1&y #%ü'\" \\"},
    "further parameters": {
        "host": "db",
        "user": "app",
        "password": SECRET,
        "dbname": "shop",
        "sslmode": "verify-full",
        "sslrootcert": "/etc/ssl/a b.pem",
        "options": "-c search_path=a,b -c x='1&2'",
        "application_name": "ü & co",
    },
    "the key's password": {"host": "db", "user": "app", "sslkey": "/k", "sslpassword": SECRET, "dbname": "x"},
}


@pytest.fixture(params=ADDRESSES.values(), ids=ADDRESSES)
def params(request):
    return request.param


def test_the_url_means_the_same_to_libpq(params):
    assert conninfo_to_dict(Address(params).url) == params
    assert Address.parse(Address(params).url, source="here").params == params


def test_the_conninfo_means_the_same_to_libpq(params):
    found = conninfo_to_dict(Address(params).conninfo)
    assert {key: value for key, value in found.items() if key != "hostaddr"} == params


def test_a_url_for_a_driver_differs_in_its_scheme_only(params):
    url = Address(params).url_for("postgresql+psycopg")
    assert url == Address(params).url.replace("postgresql", "postgresql+psycopg", 1)
    assert Address.parse(url, source="here").params == params


@pytest.mark.parametrize("name", ["plain", "IPv6", "strange names", "no password", "a socket"])
def test_sqlalchemy_reads_the_url_likewise(name):
    params = ADDRESSES[name]
    url = make_url(Address(params).url_for("postgresql+psycopg"))
    host = url.host or url.query.get("host")
    assert (host, url.username, url.password) == (params["host"], params.get("user"), params.get("password"))
    # SQLAlchemy of the older 2.0 releases leaves the name quoted.
    assert (unquote(url.database or "") or None) == params.get("dbname")


def test_no_password_is_shown(params):
    address = Address(params)
    for shown in (repr(address), str(address), address.masked, f"{address}"):
        assert "s3c" not in shown
    assert ("***" in address.masked) == ("password" in params)


def test_what_is_masked_is_the_password_and_nothing_else():
    address = Address(ADDRESSES["plain"])
    assert address.masked == "postgresql://app:***@db:5432/shop"
    assert repr(address) == "Address('postgresql://app:***@db:5432/shop')"


def test_another_database_keeps_everything_else(params):
    moved = Address(params).with_database("other")
    assert moved.database == "other"
    assert moved.params == {**params, "dbname": "other"}
    assert Address(params).database == params.get("dbname", "")


def test_the_environment_names_what_the_address_names(params):
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}
    expected = {variable: params[key] for key, variable in names.items() if key in params}
    found = Address(params).environment()
    assert {key: found[key] for key in expected} == expected
    assert set(found) & set(names.values()) == set(expected)


def test_a_hostaddr_in_the_environment_leads_nowhere_else(monkeypatch):
    monkeypatch.setenv("PGHOSTADDR", "192.0.2.1")
    assert conninfo_to_dict(Address({"host": "db"}).conninfo)["hostaddr"] == ""


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "POSTGRESQL", "postgresql+asyncpg", "postgres+psycopg2"])
def test_every_spelling_of_the_scheme_is_read(scheme):
    address = Address.parse(f"{scheme}://app:x@db:5433/shop?sslmode=require", source="here")
    assert address.url == "postgresql://app:x@db:5433/shop?sslmode=require"


@pytest.mark.parametrize(
    "url", ["mysql://app:s3cret@db/shop", "db/shop", "host=db password=s3cret", "postgresqlx://a:s3cret@db/x"]
)
def test_another_kind_of_url_is_an_error_that_shows_its_source_and_no_password(url):
    with pytest.raises(ConfigError) as caught:
        Address.parse(url, source="SEEDDB_SERVER")
    assert caught.value.source == "SEEDDB_SERVER"
    assert caught.value.what == "The server's URL is not a PostgreSQL URL"
    assert "s3cret" not in str(caught.value)


UNREADABLE = {
    "postgresql://app:s3cret@[::1/shop": "]",
    "postgresql://app:s3cret@db/x?nonsense=1": "nonsense",
    "postgresql://app:s3%zzcret@db/x": "percent-encoded",
    "postgresql://app@db/x?password=s3%zzcret": "percent-encoded",
    "postgresql://app:s3%bbcret@db/x": "is not UTF-8",
    "postgresql://app:s3/cret@db/x": "its port is not a number",
}


@pytest.mark.parametrize(
    "password", ["s3@cret", "s3@s3/cret", "s3@/cret", "s3@s3@/cret", "1@s3/s3/cret", "s3@1:2/cret"]
)
@pytest.mark.parametrize("rest", ["db", "db/x", "db:5432/x", "db/x?sslmode=prefer"])
def test_no_part_of_a_password_is_taken_for_a_host_or_a_database(password, rest):
    with pytest.raises(ConfigError) as caught:
        Address.parse(f"postgresql://app:{password}@{rest}", source="SEEDDB_SERVER")
    assert "%40 for @" in caught.value.remedy
    for part in ("s3", "cret@"):
        assert part not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["postgresql://db/my@shop", "postgresql://app@db/my@shop", "postgresql://a:b@db/my%40shop"]
)
def test_a_database_may_have_an_at_sign(url):
    assert Address.parse(url, source="SEEDDB_SERVER").database == "my@shop"


@pytest.mark.parametrize("url", UNREADABLE)
def test_a_url_that_cannot_be_read_is_an_error_with_the_reason_and_no_password(url):
    with pytest.raises(ConfigError) as caught:
        Address.parse(url, source="SEEDDB_SERVER")
    assert caught.value.what == "The server's URL cannot be read"
    assert UNREADABLE[url] in caught.value.saw
    assert ("sslmode=require" if "nonsense" in url else "%40 for @") in caught.value.remedy
    for part in ("s3", "cret@"):
        assert part not in str(caught.value)


@pytest.mark.parametrize("password", ["s3'cret", "s3,cret", "'s3 cret'", "s3;cret)", 's3"cret', r"'s3\'cret'"])
def test_a_password_in_keywords_and_values_is_hidden_to_its_end(password):
    with pytest.raises(ConfigError) as caught:
        Address.parse(f"host=127.0.0.1 user=app password={password} dbname=x", source="SEEDDB_SERVER")
    assert "dbname=x" in caught.value.saw
    for part in ("s3", "cret"):
        assert part not in str(caught.value)
