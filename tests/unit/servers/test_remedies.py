"""What is said about errors of what belongs to the whole server."""

from __future__ import annotations

import pytest

from pytest_seeddb.servers.remedies import is_taken, remedy

AT_ONCE = 'duplicate key value violates unique constraint "{}"'


@pytest.mark.parametrize(
    ("message", "sqlstate", "words"),
    [
        ('role "reader" already exists', "42710", "CREATE ROLE"),
        (AT_ONCE.format("pg_authid_rolname_index"), "23505", "CREATE ROLE"),
        (AT_ONCE.format("pg_auth_members_role_member_index"), "23505", "CREATE ROLE"),
        ('database "other" already exists', "42P04", "DROP DATABASE IF EXISTS"),
        (AT_ONCE.format("pg_database_datname_index"), "23505", "DROP DATABASE IF EXISTS"),
    ],
)
def test_what_others_made_for_the_whole_server_is_known_also_where_both_did_at_once(message, sqlstate, words):
    assert is_taken(message)
    assert words in remedy(message, sqlstate)


@pytest.mark.parametrize("message", ['relation "shop" already exists', AT_ONCE.format("shop_name_key")])
def test_what_is_the_databases_own_is_not(message):
    assert not is_taken(message)
