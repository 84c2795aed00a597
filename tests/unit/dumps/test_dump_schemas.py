"""How two schemas differ, told so that a person can mend it."""

from __future__ import annotations

import pytest

from pytest_seeddb.dumps.schema import differences, parse_schema

SHOP = """
CREATE TABLE public.shop (
    id integer NOT NULL,
    name text
);
"""


def shown(one, other):
    return [(each.name, each.lines) for each in differences(one, other)]


@pytest.mark.parametrize(
    ("one", "other", "lines"),
    [
        (SHOP, SHOP.replace("name text", "name text,\n    town text"), ("+ town text",)),
        (SHOP, SHOP.replace("name text", "name bytea"), ("- name text", "+ name bytea")),
        (
            SHOP,
            SHOP.replace("    id integer NOT NULL,\n    name text\n", "    name text,\n    id integer NOT NULL\n"),
            ("- id integer NOT NULL", "- name text", "+ name text", "+ id integer NOT NULL"),
        ),
        (SHOP, None, ("- CREATE TABLE public.shop (",)),
        (None, SHOP, ("+ CREATE TABLE public.shop (",)),
    ],
    ids=["a column more", "another type", "another order", "only here", "only there"],
)
def test_a_difference_is_shown_by_its_lines(one, other, lines):
    schemas = ({} if each is None else {"TABLE public.shop": each} for each in (one, other))
    assert shown(*schemas) == [("TABLE public.shop", lines)]


def test_what_says_nothing_about_the_schema_is_no_difference():
    one = f"{SHOP}\n\nSET default_table_access_method = heap;\n"
    other = f"{SHOP}\n--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict Key\n"
    assert shown({"TABLE public.shop": one}, {"TABLE public.shop": other}) == []


def test_objects_are_told_by_kind_schema_and_name_and_those_of_one_name_are_put_together():
    text = "".join(
        f"--\n-- Name: {name}; Type: {kind}; Schema: {schema}; Owner: -\n--\n\n{body}\n"
        for name, kind, schema, body in (
            ("shop", "SCHEMA", "-", "CREATE SCHEMA shop;"),
            ("odd; name", "TABLE", "shop", "one"),
            ("odd; name", "TABLE", "shop", "two"),
        )
    )
    found = parse_schema(text)
    assert list(found) == ["SCHEMA shop", "TABLE shop.odd; name"]
    assert found["TABLE shop.odd; name"].split() == ["one", "two"]
