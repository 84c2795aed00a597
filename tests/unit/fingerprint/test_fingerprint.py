from __future__ import annotations

import os

import pytest

from pytest_seeddb.errors import ConfigError
from pytest_seeddb.fingerprint.digests import (
    Difference,
    Part,
    chain,
    content_part,
    differences,
    digest,
    explain_change,
    file_part,
    glob_parts,
    relative_name,
    seal,
)

A, B = digest("a"), digest("b")


def _write(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def _names(patterns, root):
    return [part.name for part in glob_parts(patterns, root, source="watch")]


def test_a_digest_is_16_hexadecimal_digits_of_sha_256():
    assert digest("abc") == digest(b"abc") == "ba7816bf8f01cfea"


def test_text_that_is_no_valid_unicode_has_a_digest():
    assert digest("\udcff") != digest("\udcfe")


def test_a_chain_depends_on_all_that_came_before():
    parts = [Part("x", A)]
    first = chain("", "one", parts)
    assert len(first) == 64
    assert len({first, chain(first, "one", parts), chain("", "two", parts), chain("", "one", [])}) == 4


def test_a_chain_does_not_depend_on_the_order_of_parts():
    assert chain("", "s", [Part("x", A), Part("y", B)]) == chain("", "s", [Part("y", B), Part("x", A), Part("x", A)])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("", "ab", [Part("c", "d")]), ("", "a", [Part("bc", "d")])),
        (("", "s", [Part("a", "bc")]), ("", "s", [Part("ab", "c")])),
        (("", "s", [Part("a", "b"), Part("c", "d")]), ("", "s", [Part("a", "b1:c1:d")])),
    ],
)
def test_different_inputs_never_run_together(one, other):
    assert chain(*one) != chain(*other)


def test_a_file_is_named_from_the_root_and_told_by_its_content(tmp_path):
    _write(tmp_path, "db/a.sql")
    assert file_part(tmp_path / "db/a.sql", tmp_path) == Part("db/a.sql", digest("db/a.sql"))


def test_a_file_outside_of_the_root_has_the_same_name_wherever_both_lie(tmp_path):
    _write(tmp_path, "shared/a.sql")
    assert relative_name(tmp_path / "shared/a.sql", tmp_path / "app") == "../shared/a.sql"


def test_a_root_behind_a_link_gives_the_same_names(tmp_path):
    _write(tmp_path, "real/a.sql")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert relative_name(tmp_path / "real/a.sql", tmp_path / "link") == "a.sql"
    assert relative_name(tmp_path / "link/a.sql", tmp_path / "link") == "a.sql"


def test_a_linked_file_keeps_the_name_that_it_has_in_the_project(tmp_path):
    _write(tmp_path, "elsewhere/a.sql", "app/b.sql")
    (tmp_path / "app/a.sql").symlink_to(tmp_path / "elsewhere/a.sql")
    assert file_part(tmp_path / "app/a.sql", tmp_path / "app").name == "a.sql"


def test_a_missing_file_is_an_error_that_names_it_and_its_source(tmp_path):
    with pytest.raises(ConfigError) as caught:
        file_part(tmp_path / "gone.sql", tmp_path, source="seeds in pyproject.toml")
    assert str(caught.value) == (
        "The file gone.sql cannot be read\n"
        f"  saw:  No such file or directory: {tmp_path}/gone.sql\n"
        "  from: seeds in pyproject.toml\n"
        "  do:   correct the path, or create the file"
    )


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("db/one.sql", ["db/one.sql"]),
        ("db/*.sql", ["db/one.sql"]),
        ("db", ["db/.hidden", "db/deep/er/two.sql", "db/one.sql"]),
        ("db/", ["db/.hidden", "db/deep/er/two.sql", "db/one.sql"]),
        ("db/**", ["db/.hidden", "db/deep/er/two.sql", "db/one.sql"]),
        ("**/*.sql", ["db/deep/er/two.sql", "db/one.sql", "odd[1].sql"]),
        ("d?/*/er/*", ["db/deep/er/two.sql"]),
        ("odd[1].sql", ["odd[1].sql"]),
    ],
)
def test_a_pattern_names_files_below_the_root(tmp_path, pattern, expected):
    _write(tmp_path, "db/one.sql", "db/deep/er/two.sql", "db/__pycache__/x.pyc", "db/.hidden", "odd[1].sql")
    assert _names([pattern], tmp_path) == expected


def test_absolute_patterns_and_parents_are_patterns_too(tmp_path):
    _write(tmp_path, "shared/a.sql", "app/b.sql")
    assert _names([f"{tmp_path}/app/*.sql", "../shared/*.sql"], tmp_path / "app") == ["../shared/a.sql", "b.sql"]


def test_a_file_that_two_patterns_name_counts_once(tmp_path):
    _write(tmp_path, "db/one.sql")
    assert _names(["db/*", "db/one.sql", "**/*.sql"], tmp_path) == ["db/one.sql"]


def test_links_that_lead_back_up_end(tmp_path):
    _write(tmp_path, "db/one.sql")
    (tmp_path / "db/loop").symlink_to(tmp_path)
    assert _names(["**/*.sql"], tmp_path) == ["db/one.sql"]


def test_a_pattern_that_matches_nothing_is_an_error_that_names_it(tmp_path):
    (tmp_path / "empty").mkdir()
    for pattern in ("db/*.sql", "empty", "gone.json"):
        with pytest.raises(ConfigError, match=r"from: watch in seeddb\.toml") as caught:
            glob_parts([pattern], tmp_path, source="watch in seeddb.toml")
        assert caught.value.what == f'No file matches "{pattern}"'


def test_an_empty_list_of_patterns_has_no_parts(tmp_path):
    assert glob_parts([], tmp_path, source="watch") == ()


def _step(name, *parts):
    return (name, tuple(Part(*part) for part in parts))


def test_no_difference_has_no_explanation():
    steps = [_step("seed roles", ("shop/seeds.py", A))]
    assert explain_change(steps, list(steps)) == ""


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([("x.py", A)], [("x.py", B)], "x.py changed (used by seed s)"),
        ([("x.py", A)], [], "x.py (used by seed s) is gone"),
        ([], [("x.py", A)], "new x.py (used by seed s)"),
        ([("x.csv", A)], [("x.csv", "missing")], "x.csv is missing"),
        ([("parameter stores", "3")], [("parameter stores", "10")], "parameter stores: 3 -> 10"),
        ([("package faker", "40.1.0")], [("package faker", "40.2.0")], "package faker: 40.1.0 -> 40.2.0"),
        ([("python", "3.11")], [("python", "3.12")], "python: 3.11 -> 3.12"),
        ([], [("package faker", "40.2.0")], "new package faker (40.2.0)"),
        ([("parameter note", "a\nb")], [("parameter note", "c" * 99)], f"parameter note: a b -> {'c' * 60}..."),
    ],
)
def test_a_changed_part_is_named_with_what_a_reader_can_use(before, after, expected):
    assert explain_change([_step("seed s", *before)], [_step("seed s", *after)]) == expected


def test_new_and_gone_steps_are_named_without_their_parts():
    old = [_step("migration 0001", ("m/1.py", A)), _step("seed roles", ("s.py", A))]
    new = [_step("migration 0001", ("m/1.py", A)), _step("migration 0009_discounts", ("m/9.py", A))]
    assert explain_change(old, new) == "new migration 0009_discounts; seed roles is gone"


def test_a_part_of_several_steps_is_named_once():
    old = [_step(f"seed {name}", ("models.py", A)) for name in "abc"]
    new = [_step(f"seed {name}", ("models.py", B)) for name in "abc"]
    assert explain_change(old, new) == "models.py changed (used by seed a and 2 more)"


def test_what_changed_comes_before_what_came_and_the_rest_is_counted():
    old = [_step("seed s", ("a.py", A), ("b.py", A), ("gone.py", A))]
    new = [_step("seed s", ("a.py", B), ("b.py", B), ("new.py", A)), _step("seed t")]
    assert explain_change(old, new) == (
        "a.py changed (used by seed s); b.py changed (used by seed s); new seed t; ... and 2 more"
    )


def test_no_secret_is_shown():
    old = [_step("seed s", ("parameter api_password", "one"), ("parameter dsn", "postgresql://me:two@h/d"))]
    new = [_step("seed s", ("parameter api_password", "three"), ("parameter dsn", "postgresql://me:four@h/d"))]
    line = explain_change(old, new)
    assert line.startswith("parameter api_password changed (used by seed s); parameter dsn: postgresql://me:***@h/d")
    assert not {word for word in ("one", "two", "three", "four") if word in line}


def test_another_order_is_a_difference():
    one, two = _step("seed a", ("x.py", A)), _step("seed b", ("y.py", A))
    assert explain_change([one, two], [two, one]) == "seed b now comes before seed a"


def test_a_part_that_another_step_uses_as_well_now_is_a_difference():
    old = [_step("seed a", ("x.py", A)), _step("seed b")]
    new = [_step("seed a", ("x.py", A)), _step("seed b", ("x.py", A))]
    assert explain_change(old, new) == "seed b uses other files"


def test_an_explanation_is_one_line():
    old = [_step("seed s", ("parameter note", "a\r\nb"))]
    assert os.linesep not in explain_change(old, [_step("seed s", ("parameter note", "x\ny"))])


def test_the_long_form_names_every_difference_once_with_its_steps():
    old = [
        _step("seed s", ("a.py", A), ("gone.py", A), ("parameter stores", "3"), ("data.csv", A)),
        _step("seed t", ("a.py", A)),
        _step("seed old"),
    ]
    new = [
        _step("seed s", ("a.py", B), ("new.py", A), ("parameter stores", "10"), ("data.csv", "missing")),
        _step("seed t", ("a.py", B)),
        _step("seed new", ("c.py", A)),
    ]
    assert differences(old, new) == [
        Difference("changed", "a.py", steps=("seed s", "seed t")),
        Difference("added", "new.py", steps=("seed s",)),
        Difference("changed", "parameter stores", "3", "10", ("seed s",)),
        Difference("removed", "data.csv", steps=("seed s",)),
        Difference("removed", "gone.py", steps=("seed s",)),
        Difference("added", "seed new"),
        Difference("removed", "seed old"),
    ]


def test_the_long_form_says_nothing_where_nothing_differs_and_something_where_only_the_order_does():
    one, two = _step("seed a", ("x.py", A)), _step("seed b", ("y.py", A))
    assert differences([one, two], [one, two]) == []
    assert differences([one, two], [two, one]) == [Difference("changed", "seed b now comes before seed a")]


def test_the_long_form_shows_no_secret():
    old = [_step("seed s", ("parameter api_password", "one"), ("parameter dsn", "postgresql://me:two@h/d"))]
    new = [_step("seed s", ("parameter api_password", "three"), ("parameter dsn", "postgresql://me:four@h/d"))]
    told = str(differences(old, new))
    assert "api_password" in told
    assert not {word for word in ("one", "two", "three", "four") if word in told}


def _sealed(value, *, name="parameter pin", salt="salt"):
    return seal([Part(name, "set", value)], salt)[0]


def test_a_sealed_secret_depends_on_its_name_its_value_and_the_salt():
    parts = [_sealed("1"), _sealed("2"), _sealed("1", name="parameter word"), _sealed("1", salt="another")]
    assert len({part.digest for part in parts}) == 4
    assert _sealed("1") == parts[0]
    assert all(part.text == "set" and not part.secret for part in parts)


def test_what_is_no_secret_is_not_sealed():
    part = Part("parameter stores", "3")
    assert seal([part], "salt") == (part,)
    assert part.text == "3"


def test_a_changed_secret_is_told_without_anything_of_it():
    old, new = ([("seed", (_sealed(value),))] for value in ("1", "2"))
    assert explain_change(old, new) == "parameter pin changed (used by seed)"
    assert explain_change([("seed", (Part("parameter pin", "set"),))], new) == "parameter pin changed (used by seed)"
    assert differences(old, new) == [Difference("changed", "parameter pin", steps=("seed",))]


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [
        (".env", True),
        ("deploy/.env.local", True),
        (".envrc", True),
        ("../.env", True),
        ("secrets.toml", True),
        ("config/.secrets.yaml", True),
        ("run/secrets/token.txt", True),
        ("deploy/prod.env", True),
        ("env/local.txt", True),
        (".pgpass", True),
        ("credentials.json", True),
        ("config/master.key", True),
        ("data/passwords.csv", True),
        ("admin-pins.csv", True),
        ("id_ed25519", True),
        ("spins.csv", False),
        ("shop/passwords.py", False),
        ("keys.csv", False),
        ("shop/secrets.py", False),
        ("shop/environment.py", False),
        ("db/003_add_secret_column.sql", False),
        ("secretary.csv", False),
    ],
)
def test_a_file_of_secrets_is_a_secret_itself(name, is_secret):
    part = content_part(name, A)
    assert (part.digest, part.secret) == (("set", A) if is_secret else (A, ""))
    assert content_part(name, "missing") == Part(name, "missing")


def test_a_watched_file_of_secrets_is_a_secret(tmp_path):
    (tmp_path / ".env").write_text("PIN=1234")
    assert [part.secret for part in glob_parts([".env"], tmp_path, source="watch")] == [digest("PIN=1234")]
