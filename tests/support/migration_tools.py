"""Run migration tools themselves, and compare what they make with what pytest-seeddb makes of the same directory.

    python tests/support/migration_tools.py [TOOL...]

Each tool that is on the PATH gets a history of ten files with odd versions, ways back and a file that it leaves out,
on an empty database of a server of its own. Its order of files and its schema (``pg_dump -s``) have to be ours. The
tools come from PyPI (yoyo-migrations with psycopg2-binary, pogo-migrate, pyway, and aerich 0.6, the last one with SQL
files), npm (dbmate, node-pg-migrate with pg, postgrator-cli, liquibase, supabase) and Debian (sqitch with
libdbd-pg-perl, sql-migrate).
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from pytest_seeddb.migrations.sources import stages
from pytest_seeddb.plan.plan import Target
from pytest_seeddb.settings.settings import Settings
from tests.support.poor import poor_server

NOT_RUN = "CREATE TABLE not_run ();\n"


def up(name):
    """SQL that notes when it ran, and makes a table of its own."""
    return (
        "CREATE TABLE IF NOT EXISTS ran (n serial, file text);\n"
        f"INSERT INTO ran (file) VALUES ('{name}');\nCREATE TABLE \"t {name}\" (v text DEFAULT 'a;b');\n"
    )


def down(name):
    return f'DROP TABLE "t {name}";\n'


@dataclass
class Tool:
    """One tool: its program, its files below the directory, how it is run, and the tables that it makes for itself."""

    program: str
    files: dict[str, str]
    command: str
    own: str
    environment: dict[str, str] = field(default_factory=dict)
    directory: str = "db"


def parted(names, mark_up, mark_down, head=""):
    return {name: f"{head}{mark_up}\n{up(name)}{mark_down}\n{down(name)}" for name in names}


VERSIONS = ["1", "2", "3", "9", "10", "0011", "99", "100", "20260101000000", "20260101000001"]
YOYO = {"a-late": "z-base c", "z-base": "", "c": "z-base", "b": "", "d1": "", "d10": "", "d2": "a-late", "e": "d2 b"}
FLYWAY = ["1.0", "1.1", "1.2", "1.10", "1_11", "2.0", "2_1", "10.0", "10.0.1", "11.0"]
SQITCH = [f"change-{number}" for number in (5, 4, 3, 2, 1, 6, 7, 8, 9)]


def sqitch():
    moment = "2026-01-01T00:00:{:02}Z A B <a@b.example>"
    lines = [f"{name} {moment.format(at)}" for at, name in enumerate([*SQITCH, "@v1", "change-3 [change-3@v1]"])]
    deploys = {f"deploy/{name}.sql": up(f"deploy/{name}.sql") for name in SQITCH}
    deploys["deploy/change-3@v1.sql"] = up("deploy/change-3@v1.sql")
    others = {f"{way}/{name}.sql": NOT_RUN for way in ("revert", "verify") for name in SQITCH}
    return {
        "sqitch.plan": "%syntax-version=1.0.0\n%project=shop\n\n" + "\n".join(lines) + "\n",
        "sqitch.conf": "[core]\n\tengine = pg\n",
        **others,
        **deploys,
        "deploy/unused.sql": NOT_RUN,
    }


def liquibase(names):
    texts = {}
    for name in names:
        other = f"--changeset me:{name}-other dbms:mysql\n{NOT_RUN}"
        texts[name] = f"--liquibase formatted sql\n--changeset me:{name}\n{up(name)}--rollback {down(name)}\n{other}"
    return texts


def yoyo():
    texts = {
        f"{name}.sql": (f"-- depends: {needs}\n" if needs else "") + up(f"{name}.sql") for name, needs in YOYO.items()
    }
    backs = {f"{name}.rollback.sql": down(f"{name}.sql") for name in YOYO}
    return {**texts, **backs, "f.sql": up("f.sql"), "post-apply.sql": up("post-apply.sql"), "sub/g.sql": NOT_RUN}


def pogo():
    """Each depends on the one before: pogo-migrate itself runs others in the order of the file system."""
    names = ["z", "a", "c", "b", "d10", "d2", "d1", "y", "x", "e"]
    return {
        f"{name}.sql": f"-- m\n-- depends: {needs}\n\n-- migrate: apply\n{up(name)}-- migrate: rollback\n{down(name)}"
        for name, needs in zip(names, ["", *names], strict=False)
    }


CHANGELOG = "databaseChangeLog:\n  - includeAll:\n      path: db/\n"

AERICH = (
    "CREATE TABLE aerich (id SERIAL PRIMARY KEY, version VARCHAR(255) NOT NULL, app VARCHAR(100) NOT NULL, "
    "content JSONB NOT NULL);\n"
)

TOOLS = {
    "yoyo": Tool("yoyo", yoyo(), "yoyo apply --batch --no-config-file --database $URL db", r"_?yoyo.*"),
    "pogo-migrate": Tool("pogo", pogo(), "pogo apply", r"_pogo.*", {"POSTGRES_DSN": "$URL"}),
    "flyway (pyway)": Tool(
        "pyway",
        {f"V{version}__x.sql": up(f"V{version}__x.sql") for version in FLYWAY},
        "pyway migrate --database-table pyway --database-migration-dir db --database-type postgres "
        "--database-host 127.0.0.1 --database-port $PORT --database-name $NAME --database-username postgres "
        "--database-password x",
        r"pyway.*",
    ),
    "dbmate": Tool(
        "dbmate",
        {**parted([f"{v}_x.sql" for v in VERSIONS], "-- migrate:up", "-- migrate:down"), "notes.sql": NOT_RUN},
        "dbmate --url $URL?sslmode=disable --migrations-dir db --no-dump-schema migrate",
        "schema_migrations",
    ),
    "sql-migrate": Tool(
        "sql-migrate",
        parted([f"{version}_x.sql" for version in VERSIONS], "-- +migrate Up", "-- +migrate Down"),
        "sql-migrate up -config=dbconfig.yml",
        "gorp_migrations",
    ),
    "node-pg-migrate": Tool(
        "node-pg-migrate",
        parted(
            [*(f"{v}_x.sql" for v in VERSIONS[:8]), "1767225600001_x.sql", "20260101000000002_x.sql"],
            "-- Up Migration",
            "-- Down Migration",
        ),
        "node-pg-migrate up -m db",
        "pgmigrations.*",
        {"DATABASE_URL": "$URL"},
    ),
    "postgrator": Tool(
        "postgrator",
        {
            **{f"{v}.do.x.sql": up(f"{v}.do.x.sql") for v in VERSIONS},
            **{f"{v}.undo.x.sql": down(f"{v}.do.x.sql") for v in VERSIONS},
            "notes.sql": NOT_RUN,
        },
        "postgrator --migration-pattern 'db/*' --driver pg --host 127.0.0.1 --port $PORT --database $NAME "
        "--username postgres --password x",
        "schemaversion",
    ),
    "sqitch": Tool(
        "sqitch", sqitch(), "cd db && sqitch deploy --no-verify db:pg://postgres@127.0.0.1:$PORT/$NAME", "sqitch"
    ),
    "aerich": Tool(
        "aerich",
        {
            **parted([f"{version}_x.sql" for version in VERSIONS], "-- upgrade --", "-- downgrade --"),
            "0_init.sql": f"-- upgrade --\n{AERICH}{up('0_init.sql')}-- downgrade --\n{NOT_RUN}",
        },
        "aerich init -t project.TORTOISE_ORM --location migrations && aerich upgrade",
        "",
        directory="migrations/models",
    ),
    "supabase": Tool(
        "supabase",
        {**{f"{v}_x.sql": up(f"{v}_x.sql") for v in VERSIONS}, "notes.sql": NOT_RUN},
        "supabase db push --db-url $URL?sslmode=disable --include-all --yes",
        "",
        directory="supabase/migrations",
    ),
    "liquibase": Tool(
        "liquibase",
        liquibase([*(f"{version}_x.sql" for version in VERSIONS[:8]), "sub/1.sql", "a.sql"]),
        "liquibase --url=jdbc:postgresql://127.0.0.1:$PORT/$NAME --username=postgres --password=x "
        "--changeLogFile=changelog.yaml update",
        "databasechangelog.*",
    ),
}


def run_tool(tool, place, server, name):
    """What it printed, where it failed."""
    values = {"URL": f"postgresql://postgres:x@127.0.0.1:{server.port}/{name}", "PORT": str(server.port), "NAME": name}
    (place / "changelog.yaml").write_text(CHANGELOG)
    (place / "dbconfig.yml").write_text(
        f"development:\n  dialect: postgres\n  dir: db\n  datasource: {values['URL']}?sslmode=disable\n"
    )
    (place / "pyproject.toml").write_text('[tool.pogo]\nmigrations = "db"\ndatabase_config = "{POSTGRES_DSN}"\n')
    (place / "project.py").write_text(
        f"TORTOISE_ORM = {{'connections': {{'default': {values['URL'].replace('postgresql', 'postgres')!r}}}, "
        "'apps': {'models': {'models': ['aerich.models'], 'default_connection': 'default'}}}\n"
    )
    given = {key: value.replace("$URL", values["URL"]) for key, value in tool.environment.items()}
    environment = {**os.environ, **values, **given, "SQITCH_EMAIL": "a@b.example", "SQITCH_FULLNAME": "A B"}
    done = subprocess.run(
        tool.command, shell=True, cwd=place, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout + done.stderr if done.returncode else ""


def result(server, name, own=""):
    """The order of the files, and the schema without the tool's own tables."""
    order = [row[0] for row in server.do("SELECT file FROM ran ORDER BY n", database=name)]
    options = [f"--exclude-table={table}" for table in tables(server, name, own)] + [
        "--exclude-schema=sqitch",
        "--exclude-schema=supabase*",
    ]
    dump = server.call("pg_dump", "-s", "-O", "-h", "127.0.0.1", "-p", server.port, "-U", "postgres", *options, name)
    return order, re.sub(r"^\\(un)?restrict .*$", "", dump, flags=re.MULTILINE)


def tables(server, name, own):
    query = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S', 'v')"
    names = [row[0] for row in server.do(query, database=name)]
    return [table for table in names if own and re.fullmatch(own, table)]


def compare(title, tool, server):
    """What differs; empty where nothing does."""
    place = Path(tempfile.mkdtemp())
    for path, text in tool.files.items():
        (place / tool.directory / path).parent.mkdir(parents=True, exist_ok=True)
        (place / tool.directory / path).write_text(text)
    names = [re.sub(r"\W", "_", f"{who}_{title}") for who in ("tool", "ours")]
    for name in names:
        server.do(f'CREATE DATABASE "{name}"')
    if failure := run_tool(tool, place, server, names[0]):
        return f"{tool.program} failed:\n{failure[-2000:]}"
    (stage,) = stages(Settings(root=place, migrations=tool.directory))
    stage.run(Target(server.address(database=names[1]), place), 0)
    (order, schema), (ours, our_schema) = result(server, names[0], tool.own), result(server, names[1])
    shutil.rmtree(place)
    if order != ours:
        return f"the order differs:\n  {tool.program}: {order}\n  ours: {ours}"
    print(f"       {len(order)} files, {stage.notes[0].text}, {len(stage.notes) - 1} not run")
    return "\n".join(difflib.unified_diff(schema.splitlines(), our_schema.splitlines(), "tool", "ours", lineterm=""))


def main(wanted):
    failed = False
    with poor_server() as server:
        for title, tool in TOOLS.items():
            if wanted and title.split()[0] not in wanted:
                continue
            if shutil.which(tool.program) is None:
                print(f"absent {title}")
                continue
            difference = compare(title, tool, server)
            print(f"{'WRONG' if difference else 'same '}  {title}" + (f"\n{difference}" if difference else ""))
            failed |= bool(difference)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
