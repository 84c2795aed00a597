"""The order of Alembic's revisions, read from their files alone."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pytest_seeddb.errors import ConfigError
from pytest_seeddb.migrations.alembic_files import NotLiteral, Revision, order, read_layout, read_revision, stops

WHERE = "migrations in pyproject.toml"


def revision(name, *down, depends=(), labels=(), created=""):
    return Revision(name, Path(f"/x/{name}.py"), down, tuple(depends), tuple(labels), created=created)


def names(revisions):
    return [revision.id for revision in order(revisions, source=WHERE)]


def test_each_comes_after_all_that_it_follows_and_depends_on():
    found = names(
        [
            revision("d", "b", "c"),
            revision("c", "a", depends=["stock"]),
            revision("b", "a"),
            revision("a"),
            revision("s", labels=["stock"]),
        ]
    )
    for earlier, later in ("ab", "ac", "sc", "bd", "cd"):
        assert found.index(earlier) < found.index(later)


def test_the_order_does_not_depend_on_how_the_files_were_found():
    revisions = [revision(str(n), *([str(n // 2)] if n > 1 else [])) for n in range(1, 60)]
    expected = names(revisions)
    for _ in range(10):
        random.shuffle(revisions)
        assert names(revisions) == expected


def test_a_later_migration_on_a_short_branch_comes_last():
    dates = [f"2026-01-{day:02} 10:00:00" for day in range(1, 9)]
    short = [revision("a1", created=dates[0]), revision("a2", "a1", created=dates[1])]
    long = [revision("b1", created=dates[2])] + [revision(f"b{n}", f"b{n - 1}", created=dates[n]) for n in range(2, 6)]
    before = names([*short, *long])
    assert names([*short, *long, revision("a3", "a2", created=dates[7])]) == [*before, "a3"]


@pytest.mark.parametrize(
    ("revisions", "expected"),
    [
        ([revision("a"), revision("b", "a"), revision("c", "b")], {1, 2}),
        ([revision("a"), revision("b", "a"), revision("c", "a"), revision("d", "b", "c"), revision("e", "d")], {1, 4}),
        ([revision("a"), revision("b", "a"), revision("x"), revision("c", "b", depends=["x"])], set()),
        ([revision("x"), revision("a", depends=["x"]), revision("b", "a"), revision("y", "x")], {1}),
        ([revision("a"), revision("b", "a"), revision("c", "a")], {1}),
        ([revision("a")], set()),
    ],
)
def test_alembic_can_stop_where_there_is_one_head_that_all_others_follow(revisions, expected):
    ordered = order(revisions, source=WHERE)
    assert stops(ordered, source=WHERE) == expected, [revision.id for revision in ordered]


@pytest.mark.parametrize(
    ("revisions", "message", "seen"),
    [
        ([revision("b", "a")], "follows a revision that does not exist", "down_revision = 'a' in /x/b.py"),
        ([revision("b", depends=["nope"])], "follows a revision that does not exist", "depends_on = 'nope'"),
        ([revision("a", "b"), revision("b", "a")], "in a circle", "a after b: /x/a.py"),
        ([revision("a"), Revision("a", Path("/x/z.py"))], "Two migrations have the revision 'a'", "/x/z.py"),
    ],
)
def test_a_broken_history_names_the_file(revisions, message, seen):
    with pytest.raises(ConfigError, match=message) as caught:
        names(revisions)
    assert seen in str(caught.value)
    assert WHERE in str(caught.value)


def test_a_file_is_read_without_being_run(tmp_path):
    path = tmp_path / "x.py"
    path.write_text(
        '"""add orders\n\nRevision ID: 3\nCreate Date: 2026-01-02 03:04:05.6\n"""\n'
        "raise RuntimeError\n"
        "revision: str = '3'\ndown_revision: tuple[str, ...] | None = ('1', '2')\n"
        "depends_on = ['x']\nbranch_labels = {'orders'}\n"
    )
    found = read_revision(path)
    assert (found.id, found.down, found.depends, found.labels) == ("3", ("1", "2"), ("x",), ("orders",))
    assert (found.about, found.created) == ("add orders", "2026-01-02 03:04:05.6")


@pytest.mark.parametrize(
    "text", ["revision = f()\ndown_revision = None", "revision = '1'", "x = 1", "not python", "down_revision = 7"]
)
def test_a_file_that_does_not_say_it_by_itself_is_left_to_alembic(text, tmp_path):
    path = tmp_path / "x.py"
    path.write_text(text)
    with pytest.raises(NotLiteral):
        read_revision(path)


def test_only_files_that_alembic_would_load_are_read(tmp_path):
    (tmp_path / "alembic.ini").write_text("[alembic]\nscript_location = m\nversion_locations = m/versions m/versions\n")
    versions = tmp_path / "m" / "versions"
    (versions / "deeper").mkdir(parents=True)
    (tmp_path / "m" / "env.py").write_text("")
    for name in ("__init__.py", ".#1.py", "1.txt", "deeper/2.py"):
        (versions / name).write_text("broken(")
    (versions / "1.py").write_text("revision = '1'\ndown_revision = None\n")
    layout = read_layout(tmp_path / "alembic.ini", tmp_path, source=WHERE)
    assert [path.name for path in layout.migrations] == ["1.py"]
