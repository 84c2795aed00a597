"""What looks like pytest-seeddb's and is not: databases, files, processes; and whether anybody has touched them."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from pytest_seeddb.servers.naming import MARK

_HOLD = """
import sys
from pathlib import Path
from pytest_seeddb.settings.settings import load_settings
from pytest_seeddb.servers.opening import open_server
with open_server(load_settings(Path.cwd())) as server:
    print(server.address.conninfo, flush=True)
    sys.stdin.read()
"""
_DATABASES = """
    SELECT d.datname, d.xmin::text, d.oid, d.datdba, d.datconnlimit, d.datistemplate, d.datallowconn, d.datacl::text,
           d.dattablespace, shobj_description(d.oid, 'pg_database'),
           (SELECT array_agg(s::text ORDER BY setrole) FROM pg_db_role_setting s WHERE setdatabase = d.oid)
    FROM pg_database d WHERE d.datname = ANY(%s) ORDER BY 1
"""
_CLUSTER = """
    SELECT 'role', xmin::text, rolname FROM pg_authid WHERE rolname NOT LIKE 'pg\\_%'
    UNION ALL SELECT 'space', xmin::text, spcname FROM pg_tablespace
    UNION ALL SELECT 'member', xmin::text, roleid::regrole::text FROM pg_auth_members ORDER BY 1, 3
"""
_CONTENTS = """
    SELECT c.oid::regclass::text, c.xmin::text,
           (SELECT string_agg(a.attname, ',') FROM pg_attribute a WHERE attrelid = c.oid)
    FROM pg_class c WHERE c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace,
                                                 'pg_toast'::regnamespace) ORDER BY 1
"""


@contextmanager
def held_server(site):
    """The site's own server, running for the block: what reaches it."""
    line = [sys.executable, "-c", _HOLD]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(line, cwd=site.project, env=site.environ, **pipes) as process:
        yield process.stdout.readline().strip()
        process.stdin.close()


def mutated(random, name):
    """A name that is near one of ours, and none."""
    where = random.randrange(len(name))
    made = random.choice(
        [
            name[:where] + random.choice("GXé ٣-\n%\"';") + name[where + 1 :],
            name[:where] + name[where + 1 :],
            name + random.choice(["\n", " ", "_", "_1", "0x", "\t", '"', "é", "-"]),
            random.choice([" ", "x", "_", "\n"]) + name,
            name.upper(),
            name.capitalize(),
            name.replace("_", random.choice(["-", "__", " ", "%"])),
        ]
    )
    return made[:60].encode()[:60].decode(errors="ignore")


def our_name(random, plan="attacked"):
    def hexadecimal(digits):
        return f"{random.getrandbits(4 * digits):0{digits}x}"

    return random.choice(
        [
            f"seeddb_c_{hexadecimal(16)}_{random.randrange(1, 99)}",
            f"seeddb_b_{hexadecimal(16)}_{random.randrange(1, 99)}",
            f"seeddb_t_{plan}_{hexadecimal(24)}_{hexadecimal(8)}",
            f"seeddb_k_20{random.randrange(20, 30)}0101120000_{hexadecimal(8)}_{random.randrange(1, 99)}",
        ]
    )


class DecoyDatabases:
    """Databases beside ours on one server, made by somebody else.

    Some have our very names, and no mark or another format's; some our mark, and names that are none of
    ours; some the comment of a template of ours, a broken one, or one of a format to come.
    """

    def __init__(self, conninfo, random):
        self._conninfo, self._random = conninfo, random
        self.names = []

    def make(self, number):
        with self._connected() as connection:
            comments = [row[0] for row in connection.execute(
                "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname LIKE 'seeddb\\_t\\_%'"
            )]  # fmt: skip
            for _ in range(number):
                self._make(connection, *self._drawn(), comments)
            self._make(connection, "customers", -1, comments)

    def _drawn(self):
        from pytest_seeddb.servers.naming import parse_name

        if self._random.random() < 0.5:
            return our_name(self._random), self._random.choice([-1, 0, 5, 100, MARK + 1, MARK - 1, MARK + 7])
        while parse_name(name := mutated(self._random, our_name(self._random))) is not None:
            pass
        return name, self._random.choice([MARK, MARK, MARK + 1, -1])

    def _make(self, connection, name, limit, comments):
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
            return
        quoted = sql.Identifier(name)
        made = "CREATE DATABASE {} TEMPLATE template0 STRATEGY file_copy CONNECTION LIMIT {}"
        connection.execute(sql.SQL(made).format(quoted, sql.Literal(limit)))
        self.names.append(name)
        broken = ["{", "null", "[]", '{"seeddb": 2}', '{"seeddb": 1, "plan": "attacked"}', "é" * 5000, ""]
        newer = [each.replace('"seeddb": 1', '"seeddb": 2') for each in comments]
        comment = self._random.choice([*broken, *comments, *newer])
        connection.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(quoted, sql.Literal(comment)))
        if self._random.random() < 0.4:
            connection.execute(sql.SQL('ALTER DATABASE {} SET search_path = a, "b c"').format(quoted))
            connection.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO seeddb_c").format(quoted))
        if self._random.random() < 0.4:
            connection.execute(sql.SQL("ALTER DATABASE {} WITH IS_TEMPLATE true").format(quoted))
        self._fill(name)
        if name != "customers" and self._random.random() < 0.3:
            connection.execute(sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false").format(quoted))

    def _fill(self, name):
        with psycopg.connect(self._conninfo, dbname=name, autocommit=True) as connection:
            connection.execute("CREATE SCHEMA seeddb")
            connection.execute("CREATE TABLE seeddb.seeddb_c (precious text)")
            connection.execute("INSERT INTO seeddb.seeddb_c SELECT md5(n::text) FROM generate_series(1, 20) n")
            connection.execute("CREATE TABLE public.shop (seeddb_lease int); INSERT INTO public.shop VALUES (1)")

    def make_roles(self):
        with self._connected() as connection:
            for role in ("seeddb", "seeddb_c", '"seeddb_c_00000000000000aa_1"'):
                connection.execute(f"CREATE ROLE {role} LOGIN CREATEDB")
            connection.execute("GRANT seeddb TO seeddb_c")
            connection.execute("ALTER ROLE seeddb SET work_mem = '7MB'")

    def make_tablespace(self, directory):
        with self._connected() as connection:
            connection.execute(sql.SQL("CREATE TABLESPACE seeddb_b LOCATION {}").format(sql.Literal(str(directory))))
            connection.execute("CREATE DATABASE seeddb_b_1 TABLESPACE seeddb_b TEMPLATE template0")
        self.names.append("seeddb_b_1")

    def standing(self):
        """All that can be told of them: also a row that was changed and changed back is another one."""
        with self._connected() as connection:
            databases = connection.execute(_DATABASES, [self.names]).fetchall()
            found = {"databases": databases, "cluster": connection.execute(_CLUSTER).fetchall()}
        for (
            name,
            *_,
        ) in databases:
            found[name] = self._contents(name) if self._is_open(databases, name) else "closed"
        return found

    def _is_open(self, databases, name):
        return next(row[6] for row in databases if row[0] == name)

    def _contents(self, name):
        with psycopg.connect(self._conninfo, dbname=name) as connection:
            tables = connection.execute(_CONTENTS).fetchall()
            own = [each for each, *_ in tables if each in {"shop", "public.shop", "seeddb.seeddb_c"}]
            return tables, [connection.execute(f"SELECT xmin, ctid, t.* FROM {each} t").fetchall() for each in own]

    def _connected(self):
        return psycopg.connect(self._conninfo, autocommit=True)


class DecoyFiles:
    """Files and directories that look like what embedded servers keep, and are somebody else's."""

    def __init__(self, site):
        self.site = site
        self.elsewhere = site.place / "elsewhere"
        self._roots = [self.elsewhere]
        self._made = []

    def make(self, states):
        cache = self.site.cache / "pytest-seeddb"
        self._directory(self.elsewhere)
        for each in ("data", ".data.0badcafe.part", "seeddb-0badcafe00"):
            self._directory(self.elsewhere / each)
        for each in ("server.json", "server.json.new", "postgres.log", "clean", "users.lock", "data/postmaster.pid"):
            self._file(self.elsewhere / each)
        self._file(self.elsewhere / "seeddb-0badcafe00" / ".s.PGSQL.5432")
        for parent in (cache / "servers", cache / "binaries", *states):
            parent.mkdir(exist_ok=True)
            self._link(parent / "15.2-0badcafe0bad", self.elsewhere)
            for name in (".data.0badcafe.part", ".15.2-0badcafe0bad.0badcafe.part"):
                self._link(parent / name, self.elsewhere)
            for name in (".data.mine.part", "15.2-notes", "data.bak", "15.2-0BADCAFE0BAD", "seeddb-0badcafe00"):
                self._directory(parent / name)
            for name in (".data.0badcafe.txt", "postgres.log.1", "server.json.bak"):
                self._file(parent / name)
        self._directory(cache / "dumps")
        self._file(cache / "dumps" / "mine.dump")
        self._file(self.site.temporary / "seeddb-mine")
        self._directory(self.site.temporary / "seeddb-0badcafe00")
        self._link(self.site.temporary / "seeddb-0badcafe01", self.elsewhere)
        self._file(self.site.project / ".old.sql.mine.part")
        os.utime(self.site.project / ".old.sql.mine.part", (1e9, 1e9))

    def linked_from(self, state):
        """Links in a state directory, under the names of what is written there, that lead out of it."""
        for name in ("server.json.new", "clean"):
            (state / name).unlink(missing_ok=True)
            (state / name).symlink_to(self.elsewhere / name)
        (state / "postgres.log").unlink(missing_ok=True)
        (state / "postgres.log").symlink_to(self.elsewhere / "postgres.log")

    def _directory(self, path):
        path.mkdir(exist_ok=True, parents=True)
        self._file(path / "precious.txt")
        self._made.append(path)

    def _file(self, path):
        path.write_text(f"precious {secrets.token_hex(4)}")
        self._made.append(path)

    def _link(self, path, target):
        path.symlink_to(target)
        self._made.append(path)

    def standing(self):
        return {str(each): self._told(each) for each in sorted({*self._made, *self.elsewhere.rglob("*")})}

    def _told(self, path):
        try:
            found = path.lstat()
        except FileNotFoundError:
            return "gone"
        told = [oct(found.st_mode), found.st_uid, found.st_gid, found.st_ino]
        if path.is_symlink():
            return [*told, str(path.readlink())]
        if path.is_dir():
            inside = sorted(each.name for each in path.iterdir())
            # Our own may come and go beside those; in a directory of theirs nothing may.
            return [*told, inside, found.st_mtime_ns]
        return [*told, found.st_mtime_ns, path.read_bytes()]


@contextmanager
def decoy_processes(state="/var/cache/pytest-seeddb/servers/15.2-0badcafe0bad"):
    """Processes that are called like ours and belong to somebody else."""
    names = (f"postgres -D {state}", f"guard.py {state}", "postgres: seeddb_c_00000000000000aa_1", "seeddb")
    began = [subprocess.Popen([name, "600"], executable="/bin/sleep", start_new_session=True) for name in names]
    try:
        yield began
        assert [each.poll() for each in began] == [None] * len(began)
        stats = [Path(f"/proc/{each.pid}/stat").read_text().rpartition(")")[2].split()[0] for each in began]
        assert "T" not in stats
    finally:
        for each in began:
            each.kill()
            each.wait()


def record_of(state):
    return json.loads((state / "server.json").read_text())
