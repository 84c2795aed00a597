"""Which files of a directory each migration tool would run, in which order, and which are left out."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest

from pytest_seeddb.errors import ConfigError
from pytest_seeddb.migrations.formats import FORMATS, Directory
from pytest_seeddb.migrations.sql import read_steps

CREATE = "CREATE TABLE t ();"
DBMATE = "-- migrate:up\nSELECT 1;\n-- migrate:down\nSELECT 2;"
GOOSE = "-- +goose Up\nSELECT 1;\n-- +goose Down\nSELECT 2;"
SQL_MIGRATE = "-- +migrate Up\nSELECT 1;\n-- +migrate Down\nSELECT 2;"
AERICH = "-- upgrade --\nSELECT 1;\n-- downgrade --\nSELECT 2;"
TERN = "SELECT 1;\n---- create above / drop below ----\nSELECT 2;"
NODE = "-- Up Migration\nSELECT 1;\n-- Down Migration\nSELECT 2;"
LIQUIBASE = "--liquibase formatted sql\n--changeset me:1\nSELECT 1;"
ATLAS = "-- atlas:checkpoint\nSELECT 1;"


def depends(*names):
    return f"--\n-- depends: {' '.join(names)}\nSELECT 1;"


def pogo(*names):
    return f"-- m\n-- depends: {' '.join(names)}\n-- migrate: apply\nSELECT 1;\n-- migrate: rollback\nSELECT 2;"


@pytest.fixture
def directory(tmp_path):
    def directory(files, place="db", format_=""):
        root = tmp_path / "project"
        (root / place).mkdir(parents=True, exist_ok=True)
        for name, text in (files if isinstance(files, dict) else dict.fromkeys(files, CREATE)).items():
            path = root / place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return Directory(root / place, root, "migrations in seeddb.toml", format_)

    return directory


@pytest.fixture
def read(directory):
    def read(files, place="db", format_=""):
        arranged = directory(files, place, format_).arranged()
        return arranged.format, [file.name for file in arranged.used], dict(arranged.left_out)

    return read


ORDERS = [
    # Flyway: https://documentation.red-gate.com/flyway
    ("flyway", ["V1__a.sql", "V1_1__b.sql", "V2__c.sql", "V10__d.sql"]),
    ("flyway", ["V1__a.sql", "V1.1__b.sql", "V1.9__c.sql", "V1.10__d.sql", "V2__e.sql"]),
    ("flyway", ["V1.0.1__a.sql", "V1_0_2__b.sql", "V1.1__c.sql", "R__a_view.sql", "R__b.sql"]),
    ("flyway", ["z/V1__a.sql", "V2__b.sql", "a/V3__c.sql", "b/R__v.sql"]),
    ("flyway", ["V20240101120000__a.sql", "V20240102__b.sql"][::-1]),
    ("flyway", ["v1__a.sql", "v1_1__b.sql", "v1_10__c.sql"]),  # pyway's
    ("flyway", ["beforeMigrate.sql", "V1__a.sql", "afterVersioned.sql", "R__v.sql", "afterMigrate__grants.sql"]),
    ("liquibase", dict.fromkeys(["a/001.sql", "a/002.sql", "b/001.sql"], LIQUIBASE)),
    ("golang-migrate", ["1_a.up.sql", "2_b.up.sql", "10_c.up.sql"]),
    ("goose", dict.fromkeys(["00001_a.sql", "2_b.sql", "20260101120000_c.sql"], GOOSE)),
    ("dbmate", dict.fromkeys(["10_c.sql", "1_a.sql", "2_b.sql"], DBMATE)),  # by name
    ("sql-migrate", dict.fromkeys(["1_a.sql", "2_b.sql", "10_c.sql", "extra.sql"], SQL_MIGRATE)),
    ("diesel", ["20140924113530_a/up.sql", "2017-09-26-200549_b/up.sql", "2017-10-01-000000_c/up.sql"]),
    ("diesel", ["00000000000000_setup/up.sql", "2020-01-01-000000_a/up.sql", "20200102000000_b/up.sql"]),
    ("diesel", ["1_a/up.sql", "10_b/up.sql", "2_c/up.sql"]),  # by character
    ("hasura", ["1654696186008_a/up.sql", "1654698227514_b/up.sql"]),
    ("hasura", ["default/9_a/up.sql", "default/10_b/up.sql"]),
    ("prisma", ["20260101000000_init/migration.sql", "20260202000000_more/migration.sql"]),
    ("yoyo", {"b-base.sql": CREATE, "a-late.sql": depends("b-base")}),
    ("yoyo", {"c.sql": CREATE, "b.sql": depends("c"), "a.sql": depends("b", "c"), "d.sql": CREATE}),
    ("yoyo", {"1.sql": CREATE, "2.sql": CREATE, "3.sql": depends("1"), "post-apply.sql": CREATE}),
    ("aerich", dict.fromkeys(["0_a.sql", "2_b.sql", "10_c.sql"], AERICH)),
    ("pogo-migrate", {"20260102_01_b.sql": pogo(), "20260101_01_a.sql": pogo("20260102_01_b")}),
    ("tern", dict.fromkeys(["001_a.sql", "2_b.sql", "010_c.sql"], TERN)),
    ("node-pg-migrate", dict.fromkeys(["1699999999999_a.sql", "20250101000000000_b.sql"], NODE)),
    ("node-pg-migrate", dict.fromkeys(["20240101000000000_a.sql", "1735689600000_b.sql"], NODE)),
    ("postgrator", ["1.do.sql", "2.do.b.sql", "010.do.c.sql"]),
    ("plain", ["1.sql", "2_orders.sql", "10_payments.sql"]),
]


@pytest.mark.parametrize(("name", "files"), ORDERS)
def test_files_come_in_the_order_of_their_tool(name, files, read):
    assert read(files) == (name, list(files), {})


@pytest.mark.parametrize(
    ("name", "files", "left_out"),
    [
        ("flyway", ["V1__a.sql"], {"U1__a.sql": "a down migration"}),
        ("flyway", ["V2__a.sql"], {"v1/u2__a.sql": "a down migration", "V2__a.down.sql": "a down migration"}),
        ("flyway", ["V1__scale_down.sql"], {"notes.sql": "not named as Flyway names migrations"}),
        ("flyway", ["B2__b.sql", "V3__c.sql"], {"V1__a.sql": "the baseline B2__b.sql holds it"}),
        ("flyway", ["V1__a.sql"], {"beforeClean.sql": "a callback of another event"}),
        ("golang-migrate", ["1_a.up.sql"], {"1_a.down.sql": "a down migration", "1_a.DOWN.sql": "a down migration"}),
        ("golang-migrate", ["1_a.up.sql"], {"seed.sql": "not named as golang-migrate names migrations"}),
        ("diesel", ["2020-01-01-000000_init/up.sql"], {"2020-01-01-000000_init/down.sql": "a down migration"}),
        ("diesel", ["2020-01-01-000000_init/up.sql"], {"data_x.sql": "not named as Diesel names migrations"}),
        ("prisma", ["2020_init/migration.sql"], {"seed.sql": "not named as Prisma names migrations"}),
        ("prisma", ["2020_init/migration.sql"], {"2020_init/down.sql": "a down migration"}),
        ("hasura", ["1654696186008_a/up.sql"], {"1654696186008_a/down.sql": "a down migration"}),
        ("postgrator", ["001.do.a.sql"], {"001.undo.a.sql": "a down migration", "001.UNDO.b.SQL": "a down migration"}),
        ("plain", ["0001.a.sql"], {"0001.a.rollback.sql": "a down migration"}),
        ("plain", ["1.a.sql"], {"1.undo.a.sql": "a down migration"}),
        ("goose", {"1_a.sql": GOOSE}, {"1_a.rollback.sql": "a down migration"}),
        ("flyway", ["V1__a.sql"], {"v2__b.sql": "Flyway's names begin with an upper-case V"}),
        ("flyway", ["V1__a.sql", "reverse/V2__b.sql", "teardown/V3__c.sql"], {"undo/b.sql": "a down migration"}),
        ("plain", ["001_a_up.sql"], {"001_a_down.sql": "a down migration"}),
        ("plain", ["001-a.sql"], {"001-a-down.sql": "a down migration"}),
        ("plain", ["1.sql"], {"1_DOWN.sql": "a down migration"}),
        ("plain", ["001_create.sql"], {"001_drop_rollback.sql": "a down migration"}),
        ("plain", ["1.sql"], {"down/1.sql": "a down migration", "undo_1.sql": "a down migration"}),
        (
            "plain",
            ["1.a.up.sql"],
            {"1.a.dn.sql": "a down migration", "1.reverse.sql": "a down migration"},
        ),
        ("plain", ["1.sql"], {"1.revert.sql": "a down migration", "rollback.sql": "a down migration"}),
        ("plain", ["1.sql"], {"functions/f.sql": "in a directory below", "2.SQL": "its name does not end in .sql"}),
        ("plain", ["1.sql"], {"2.sql.bak": "its name does not end in .sql", "3.psql": "its name does not end in .sql"}),
    ],
)
def test_what_is_left_out_is_told_with_the_reason(name, files, left_out, read):
    given = {**(files if isinstance(files, dict) else dict.fromkeys(files, CREATE)), **dict.fromkeys(left_out, CREATE)}
    assert read(given) == (name, list(files), left_out)


@pytest.mark.parametrize(
    ("up", "down"),
    [
        ("001_users", "001_users_backout 001_users_reverse 001_users_backward 1_users_teardown 001_users_unapply"),
        ("001_users", "001_users.unapply 001_users_roll_back 001_users.roll-back 001_users.rev 001_users.back"),
        ("001_users", "001_users.rb 001_usersDown 001_usersRollback 001_rollback_users 1-down-users 001_rollback"),
        ("001_add_users", "001_rollback_users 001_undo_add_users 001_add_users_tear_down"),
        ("001_users.create", "001_users.drop"),
        ("001_create_users", "001_drop_users 001_rollback_users"),
        ("001.u", "001.d"),
        ("001_up_users", "001_down_users 001_revert_users"),
        ("users", "undo_users rollback_users users_down usersUndo"),
        ("up-users", "down-users undo-users"),
        ("install_shop", "uninstall_shop"),
    ],
)
def test_a_name_that_says_down_beside_its_up_migration_is_left_out(up, down, read):
    down = [f"{name}.sql" for name in down.split()]
    assert read([f"{up}.sql", *down]) == ("plain", [f"{up}.sql"], dict.fromkeys(down, "a down migration"))


def test_words_of_down_migrations_in_other_names_are_no_matter(read):
    files = ["1_a.sql", "2_drop_orders.sql", "3_feed_back.sql", "4_string_reverse.sql", "5_down_payments.sql"]
    files += ["6_rollback_policy.sql", "7_break_down_costs.sql", "20240101_add_x.sql", "20240101_reverse_geocoding.sql"]
    files.insert(1, "1_rollback_orders.sql")
    assert read(files) == ("plain", files, {})


@pytest.mark.parametrize("files", [["1_a.sql", "2_b.sql", "10_c.sql"], ["1_a.sql", "2_b.py"]])
def test_rollback_in_names_is_no_sign_of_yoyo_but_a_question_where_it_would_run_others(files, read):
    files = [*files, "1_a.rollback.sql"]
    with pytest.raises(ConfigError, match="may hold migrations of yoyo or plain SQL files"):
        read(files)
    assert read(files, format_="plain")[1] == [name for name in files[:-1] if name.endswith(".sql")]


def test_what_reads_like_the_header_of_yoyo_is_none_below_the_head_or_in_prose(read):
    prose = "-- depends: on the users table\nSELECT 1;"
    assert read({"1.sql": CREATE, "2.sql": prose})[0] == "plain"
    assert read({"1.sql": CREATE, "2.sql": f"{CREATE}\n-- depends: 1"}, place="below")[0] == "plain"
    assert read({"1_a.up.sql": prose, "2_b.up.sql": depends("users")}, place="golang")[0] == "golang-migrate"


@pytest.mark.parametrize(
    ("place", "remedy"),
    [
        ("sql/down", "the directory of the up migrations"),
        ("deploy", 'of the plan: "."'),
        ("revert", 'of the plan: "."'),
    ],
)
def test_a_directory_of_scripts_that_do_not_run_by_themselves_is_refused(place, remedy, directory):
    given = directory(["users.sql"], place)
    if place != "sql/down":
        (given.path.parent / "sqitch.plan").write_text(PLAN)
    with pytest.raises(ConfigError, match=remedy):
        given.arranged()


def test_each_file_that_is_not_run_is_told_but_for_companions(read):
    companions = ["README.md", "atlas.sum", "sub/.gitkeep", "__init__.py", "embed.go", "tool.toml"]
    assert read(["1.sql", "2_data.py", "3.sh", "data.csv", *companions])[2] == dict.fromkeys(
        ["2_data.py", "3.sh", "data.csv"], "its name does not end in .sql"
    )


def test_many_files_that_are_not_sql_are_one_line(read):
    assert read(["1.sql", *(f"migrate/{number}_x.rb" for number in range(9)), "one.rb"])[2] == {
        "one.rb": "its name does not end in .sql",
        "migrate/*": "9 files whose names do not end in .sql",
    }


@pytest.mark.parametrize(
    "below",
    [
        "up/001.sql",
        "committed/000001.sql",
        "migrations/1_a.sql",
        "migrations/20200101_a/migration.sql",
        "migrations/2020-01-01-000000_a/up.sql",
        "v1/001-b.sql",
    ],
)
def test_migrations_that_lie_in_a_directory_below_are_named(below, read):
    with pytest.raises(ConfigError, match="seem to be in a directory below") as caught:
        read(["seed.sql", below])
    assert f'name it: "db/{below.split("/")[0]}"' in str(caught.value)
    assert read(["0.sql", below], place="other")[1] == ["0.sql"]


def test_a_link_that_leads_upward_is_not_followed_for_ever(directory, read):
    place = directory(["1.sql"]).path
    (place / "loop").symlink_to(place)
    assert read([])[1] == ["1.sql"]


def test_a_word_in_another_tools_file_is_no_sign_without_files_of_the_tool(directory, read):
    (directory(["a.sql"]).path / "../Cargo.toml").write_text('[dependencies]\nsqlx = "0.8"\nrefinery = "0.8"')
    assert read([]) == ("plain", ["a.sql"], {})


@pytest.mark.parametrize("text", ["# not sqlx\n[dependencies]\ntokio-postgres = '1'", "[dependencies]\nsqlxy = '1'"])
def test_the_name_of_a_package_that_is_no_dependency_is_no_sign(text, directory, read):
    (directory(["2_a.sql"]).path / "../Cargo.toml").write_text(text)
    assert read([])[0] == "plain"


def test_a_name_that_ends_as_a_way_back_is_a_migration_where_the_file_says_so(read):
    files = {"1_a.sql": DBMATE, "2_scale_down.sql": DBMATE}
    assert read(files) == ("dbmate", list(files), {})


@pytest.mark.parametrize("name", ["2_scale_down.sql", "2-roll-undo.sql", "undo_2.sql", "1_rollback_a_b.sql"])
def test_a_name_that_nobody_can_tell_is_refused(name, read):
    with pytest.raises(ConfigError, match=rf"db/{name} may be an up or a down migration"):
        read(["1_a.sql", name])


@pytest.mark.parametrize(
    ("files", "titles"),
    [
        (["V1__a.sql", "001.do.a.sql"], ("Flyway", "postgrator")),
        ({"1_a.sql": DBMATE, "2_b.sql": GOOSE}, ("dbmate", "goose")),
        (["1_a.up.sql", "20200101000000_b/migration.sql"], ("golang-migrate", "Prisma")),
        (["2020-01-01-000000_a/up.sql", "002_b.sql"], ("Diesel", "numbered files")),
        (["1_a.up.sql", "2_b.sql"], ("golang-migrate", "numbered files")),
        ({"V1__a.sql": CREATE, "2_b.sql": TERN}, ("Flyway", "tern")),
        ({"1_a.sql": DBMATE, "2_b.sql": CREATE, "10_c.sql": CREATE}, ("dbmate", "files without its marks")),
    ],
)
def test_a_mixture_of_formats_is_refused(files, titles, read):
    with pytest.raises(ConfigError, match="more than one format") as caught:
        read(files)
    assert all(title in str(caught.value) for title in titles)
    assert 'format = "..."' in str(caught.value)


def test_files_without_marks_are_run_where_their_order_is_no_question(read):
    files = {"1_a.sql": CREATE, "2_b.sql": DBMATE}
    assert read(files) == ("dbmate", list(files), {})


def test_the_format_that_is_set_counts(read):
    files = ["V1__a.sql", "001.do.a.sql"]
    assert read(files, format_="flyway")[:2] == ("flyway", ["V1__a.sql"])
    assert read(files, format_="postgrator")[:2] == ("postgrator", ["001.do.a.sql"])
    assert read(["1.sql", "10.sql", "2.sql"], place="other", format_="dbmate")[1] == ["1.sql", "10.sql", "2.sql"]


def test_an_unknown_format_is_refused(read):
    with pytest.raises(ConfigError, match="Did you mean 'flyway'"):
        read(["1.sql"], format_="flywey")


@pytest.mark.parametrize(
    ("sign", "text", "name", "files"),
    [
        ("../Cargo.toml", '[dependencies]\nsqlx = "0.8"', "sqlx", ["1_a.sql", "2_b.up.sql", "10_c.sql"]),
        ("../Cargo.toml", '[workspace.dependencies]\ndb = {package = "sqlx"}', "sqlx", ["2_a.sql", "10_b.sql"]),
        ("../Cargo.toml", "[target.'cfg(unix)'.dependencies.sqlx]\nversion = '1'", "sqlx", ["2_a.sql", "10_b.sql"]),
        ("../Cargo.toml", '[dependencies]\nrefinery = "0.8"', "refinery", ["V1__a.sql", "U2__b.sql", "V10__c.sql"]),
        ("atlas.sum", "h1:x", "atlas", ["10_c.sql", "1_a.sql", "2_b.sql"]),
        ("../yoyo.ini", "[DEFAULT]", "yoyo", ["1.sql", "10.sql", "2.sql"]),
        ("../tern.conf", "[database]", "tern", ["1_a.sql", "2_b.sql", "10_c.sql"]),
    ],
)
def test_a_file_beside_tells_the_format(sign, text, name, files, directory, read):
    place = directory([]).path / sign
    place.write_text(text)
    assert read(files) == (name, files, {})


def test_supabase_is_told_by_its_place(read):
    files = ["1_a.sql", "10_c.sql", "20260101000000_a.sql", "20260102000000_b.sql", "3_d.sql"]
    assert read(files, place="supabase/migrations") == ("supabase", files, {})


def test_atlas_begins_with_its_last_checkpoint(read):
    files = {"1_a.sql": CREATE, "2_b.sql": ATLAS, "3_c.sql": ATLAS, "4_d.sql": CREATE, "atlas.sum": ""}
    reason = "the checkpoint 3_c.sql holds it"
    assert read(files) == ("atlas", ["3_c.sql", "4_d.sql"], {"1_a.sql": reason, "2_b.sql": reason})


PLAN = """%syntax-version=1.0.0
%project=shop

users 2026-01-01T00:00:00Z A B <a@b> # first
late [users] 2026-01-02T00:00:00Z A B <a@b>
@v1 2026-01-03T00:00:00Z A B <a@b>
users [users@v1] 2026-01-04T00:00:00Z A B <a@b>
schema/z [late] 2026-01-05T00:00:00Z A B <a@b>
"""


def test_sqitch_follows_its_plan(read):
    used = ["deploy/users@v1.sql", "deploy/late.sql", "deploy/users.sql", "deploy/schema/z.sql"]
    left_out = {
        "deploy/old.sql": "not in sqitch.plan",
        "revert/users.sql": "a down migration",
        "verify/late.sql": "a verify script",
    }
    files = {"sqitch.plan": PLAN, "app.py": "", "other/1.sql": "", **dict.fromkeys([*used, *left_out], CREATE)}
    assert read(files) == ("sqitch", used, left_out)


def test_sqitch_may_have_another_extension(read):
    files = {"sqitch.plan": "late 2026-01-02T00:00:00Z A B <a@b>\n", "sqitch.conf": "[core]\n extension = ddl\n"}
    assert read({**files, "deploy/late.ddl": CREATE}) == ("sqitch", ["deploy/late.ddl"], {})


def test_a_change_of_sqitch_without_a_script_is_refused(read):
    with pytest.raises(ConfigError, match=r"The change late of sqitch\.plan has no script"):
        read({"sqitch.plan": "late 2026-01-02T00:00:00Z A B <a@b>\n"})


def test_one_file_is_read_like_its_format(tmp_path):
    (tmp_path / "s.sql").write_text("SELECT '${x}';")
    read = partial(read_steps, tmp_path / "s.sql", tmp_path, source="migrations in seeddb.toml")
    with pytest.raises(ConfigError, match="Did you mean 'flyway'"):
        read(format_="flywya")
    with pytest.raises(ConfigError, match="plain SQL files has no placeholders"):
        read(placeholders=[("x", "t")])
    assert [part.name for part in read(format_="flyway", placeholders=[("x", "t")]).steps[0].parts][1:] == [
        "placeholder x"
    ]
    (tmp_path / "s.sql").write_text(f"{LIQUIBASE}\nSELECT '${{x}}';")
    assert len(read(placeholders=[("x", "t")]).steps[0].parts) == 2


def test_rails_has_one_file(read):
    assert read({"structure.sql": 'INSERT INTO "schema_migrations" (version) VALUES (1)', "seeds.sql": CREATE}) == (
        "rails",
        ["structure.sql"],
        {"seeds.sql": "not named as Rails names migrations"},
    )


@pytest.mark.parametrize(
    ("files", "what"),
    [
        (["V1__a.sql", "V1_0__b.sql"], "Two migrations have the same version"),
        (["1_a.up.sql", "001_b.up.sql"], "Two migrations have the same version"),
        ({"1_a.sql": GOOSE, "01_b.sql": GOOSE}, "Two migrations have the same version"),
        ({"a.sql": depends("gone")}, "a.sql depends on a migration that does not exist"),
        ({"a.sql": depends("b"), "b.sql": depends("a")}, "Migrations depend on each other"),
        (["one/1654696186008_a/up.sql", "two/1654696186009_b/up.sql"], "several databases"),
        (["V1__a.sql", "beforeEachMigrate.sql"], "Flyway's callback beforeEachMigrate does not run here"),
    ],
)
def test_what_the_tool_would_refuse_is_refused(files, what, read):
    with pytest.raises(ConfigError, match=what):
        read(files)


@pytest.mark.parametrize(
    ("files", "code"),
    [
        (["V1__a.sql"], "V2__b.java"),
        (dict.fromkeys(["a.sql"], LIQUIBASE), "db.changelog-master.yaml"),
        (dict.fromkeys(["1_a.sql"], GOOSE), "2_b.go"),
        ({"a.sql": depends("b"), "b.sql": CREATE}, "c.py"),
        (dict.fromkeys(["0_a.sql"], AERICH), "1_b.py"),
        (dict.fromkeys(["1_a.sql"], NODE), "2_b.js"),
        (["1.do.sql"], "2.do.js"),
        (["1654696186008_a/up.sql"], "1654696186009_b/up.yaml"),
    ],
)
def test_a_migration_that_only_the_tool_can_run_is_refused(files, code, directory):
    given = directory(files)
    (given.path / code).parent.mkdir(exist_ok=True)
    (given.path / code).write_text("")
    with pytest.raises(ConfigError, match="runs a migration here that is not SQL") as caught:
        given.arranged()
    assert f"db/{code}" in str(caught.value)


def test_files_of_the_same_tools_that_are_no_migrations_are_no_matter(read):
    assert read({"1_a.sql": GOOSE, "embed.go": "", "1_a_test.go": ""})[1] == ["1_a.sql"]
    assert read({"a.sql": depends("b"), "b.sql": CREATE, "__init__.py": ""}, place="other")[1] == ["b.sql", "a.sql"]


def test_each_format_is_in_a_test():
    tried = {name for name, _ in ORDERS} | {"sqlx", "refinery", "atlas", "supabase", "sqitch", "rails"}
    assert {format_.name for format_ in FORMATS} == tried


def test_the_reference_lists_the_formats_in_order():
    page = (Path(__file__).parents[3] / "docs/reference/migration-formats.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)`[^|]*\|[^|]*\|[^|]*\|[^|]*\|[^|]*\|$", page, re.MULTILINE)
    assert rows == ["format", *(format_.name for format_ in FORMATS)]
