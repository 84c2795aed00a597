from __future__ import annotations

import re

import pytest

from pytest_seeddb.servers import naming
from pytest_seeddb.servers.naming import (
    DROPPED_HALFWAY,
    MARK,
    build_name,
    clone_name,
    is_ours,
    lock_key,
    new_lease,
    parse_name,
    slug,
    template_name,
)

FINGERPRINT = "0123456789abcdef" * 4
LEASE = "fedcba9876543210"
PLANS = ["shop", "The Shop!", "", "___", "x" * 500, "Läden & Söhne", "商店", "a-b.c/d", "🛒", "18 shops", "'; DROP --"]


def all_names(plan):
    return [
        template_name(plan, FINGERPRINT, new_lease()),
        build_name(LEASE, 10**9),
        clone_name(LEASE, 10**9),
    ]


@pytest.mark.parametrize("plan", PLANS)
def test_a_name_fits_and_needs_no_quotes_whatever_the_plan_is_called(plan):
    for name in all_names(plan):
        assert len(name.encode()) <= naming.MAX_BYTES
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert parse_name(name) is not None


def test_two_plans_that_look_alike_when_shortened_are_told_apart_by_the_fingerprint():
    one, two = ("a" * 18 + suffix for suffix in ("x", "y"))
    assert slug(one) == slug(two)
    assert template_name(one, FINGERPRINT, LEASE) != template_name(two, FINGERPRINT[::-1], LEASE)


def test_a_name_taken_apart_gives_what_it_was_made_of():
    template = parse_name(template_name("The Shop", FINGERPRINT, LEASE))
    assert template == naming.OurName("template", fingerprint=FINGERPRINT[:24], variant=LEASE[:8], slug="the_shop")
    assert parse_name(build_name(LEASE, 3)) == naming.OurName("build", lease=LEASE)
    assert parse_name(clone_name(LEASE, 3)) == naming.OurName("clone", lease=LEASE)


DECOYS = [
    "seeddb",
    "seeddb_test",
    "seeddb_t_shop",
    f"seeddb_t_shop_{FINGERPRINT[:24]}",
    f"seeddb_t_shop_{FINGERPRINT[:23]}_{LEASE[:8]}",
    f"seeddb_t_Shop_{FINGERPRINT[:24]}_{LEASE[:8]}",
    f"seeddb_t_shop_{FINGERPRINT[:24].upper()}_{LEASE[:8]}",
    f"my_seeddb_t_shop_{FINGERPRINT[:24]}_{LEASE[:8]}",
    f"seeddb_c_{LEASE}",
    f"seeddb_c_{LEASE}_",
    f"seeddb_c_{LEASE}_1x",
    f"seeddb_c_{LEASE}_1\n",
    f"seeddb_c_{LEASE}_1 ",
    f"seeddb_c_{LEASE[:-1]}_1",
    f"seeddb_x_{LEASE}_1",
    f"seeddb_c_{LEASE}_-1",
    f"seeddb_c_{LEASE}_\u0661",
    "postgres",
    "template0",
    "",
]


@pytest.mark.parametrize("name", DECOYS)
def test_a_name_that_is_nearly_ours_is_not_ours_even_with_the_mark(name):
    assert parse_name(name) is None
    assert not is_ours(name, MARK)
    assert not is_ours(name, DROPPED_HALFWAY)


@pytest.mark.parametrize("limit", [-1, 0, 1, 100, MARK - 1, MARK + 1, -MARK])
def test_our_name_without_our_mark_is_not_ours(limit):
    for name in all_names("shop"):
        assert is_ours(name, MARK)
        assert not is_ours(name, limit)


def test_what_postgresql_left_half_dropped_is_told_by_its_name():
    assert is_ours(clone_name(LEASE, 1), DROPPED_HALFWAY)
    assert not is_ours("shop", DROPPED_HALFWAY)


def test_the_mark_is_a_connection_limit_that_the_server_takes():
    assert 0 < MARK < 2**31


def test_a_lease_is_nobody_elses():
    leases = {new_lease() for _ in range(1000)}
    assert len(leases) == 1000
    assert all(re.fullmatch("[0-9a-f]{16}", lease) for lease in leases)


def test_a_lock_key_fits_a_bigint_and_depends_on_every_word_and_on_where_one_ends():
    keys = [
        lock_key("lease", LEASE),
        lock_key("build", LEASE),
        lock_key("build", LEASE, ""),
        lock_key("a", "bc"),
        lock_key("ab", "c"),
        lock_key("abc"),
    ]
    assert len(set(keys)) == len(keys)
    assert all(0 <= key < 2**63 for key in keys)
    assert lock_key("lease", LEASE) == keys[0]
