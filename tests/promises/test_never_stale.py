"""A template is never stale: whatever is edited, tests see what a build from scratch would give them."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import uuid
from contextlib import contextmanager

import attacks
import pytest
import random_projects
from attacks import times
from separate import separate_server
from taking_part import IS_EXACT

from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.seeds.planning import plan_of
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.settings.settings import load_settings

PROFILES = ("default", "other")
TEXT_ALONE = "perhaps" if IS_EXACT else "changed"
"""What the next run makes of a comment: whole files count in some projects, and always with Python 3.11."""


@pytest.fixture(scope="module")
def server():
    with separate_server() as start:
        yield start()


@pytest.fixture
def place(server):
    with attacks.site() as site:
        shutil.rmtree(site.project)
        site.project.mkdir()
        yield site


def drawn(place, chance, server):
    """A project that Python itself can run: now and then what was drawn does not fit together."""
    while True:
        made = random_projects.Project(place, chance, server.url, uuid.uuid4().hex[:8])
        if made.truth() is not None:
            return made
        shutil.rmtree(place)
        place.mkdir()


@contextmanager
def attacked(site, server, chance):
    """A random project, with a worker that looks at it as the next run would; its templates go with it."""
    made = drawn(site.project, chance, server)
    before = [*sys.path]
    try:
        with open_server(load_settings(made.root)) as opened, Worker(opened) as worker:
            yield Attack(site, made, worker)
    finally:
        sys.path[:] = before
        with Worker(opened) as worker:
            for each in worker.admin.databases():
                worker.admin.drop(each.name)


class Attack:
    """What is known of a project's templates: what was true of the project when each was made."""

    def __init__(self, site, project, worker):
        self.site, self.project, self.worker = site, project, worker
        self.truths, self.built, self.edits = {}, [], []
        site.environment = {"SEEN": f"{site.place}/seen-", "PYTHONDONTWRITEBYTECODE": "1"}

    def looks(self):
        settings = load_settings(self.project.root)
        try:
            return {each: self.worker.look(plan_of(settings, each)) for each in PROFILES}
        finally:
            self._forget_modules()

    def _forget_modules(self):
        """As the next process has none: where names are computed, Alembic runs revisions, and what they import."""
        for name, module in [*sys.modules.items()]:
            place = f"{getattr(module, '__file__', '')} {getattr(module, '__path__', '')!r}"
            if str(self.site.project) in place:
                del sys.modules[name]

    def run(self):
        """A run of pytest: what its tests see is what is true, whatever template they got it from."""
        wanted, truth = self.project.seeded(), self.project.truth()
        told = self.site.run()
        for profile in PROFILES:
            seen = json.loads((self.site.place / f"seen-{profile}").read_text())
            assert seen == wanted[profile], self.told(told, profile)
        for look in self.looks().values():
            assert look.template, self.told(told, look.reason)
            assert self.truths.setdefault(look.template, truth) == truth, self.told(told)
        self.built.append(self.project.kept())

    def told(self, *more):
        return "\n".join(map(str, (self.edits, *more)))

    def check(self, expected, names):
        """What the next run would use is as the project is now."""
        truth = self.project.truth()
        if truth is None:
            return False
        for profile, look in self.looks().items():
            if look.template:
                assert self.truths[look.template] == truth, self.told("stale", profile)
            assert (expected == "same") <= bool(look.template), self.told("built for nothing", look.reason)
            assert (expected == "changed") <= (not look.template), self.told("not noticed", profile)
            if expected == "changed":
                shown = " more" in look.reason or any(name in look.reason for name in names)
                assert shown, self.told(look.reason, names)
        return True


def edited(path, change):
    """Change a file's text; its size and times may stay as they are."""
    text = path.read_text()
    path.write_text(change(text))
    assert path.read_text() != text or not text


class Edits:
    """Ways to change a project; each says what the next run is to make of it, and which names it may say."""

    def __init__(self, project, chance):
        self.project, self.chance, self.count = project, chance, 0

    def one(self):
        kinds = [name for name in dir(self) if name.startswith("do_")]
        while True:
            kind = self.chance.choice(kinds)
            found = getattr(self, kind)()
            if found is not None:
                return kind.removeprefix("do_"), *found

    def _path(self, name):
        return self.project.root / name

    def _code(self):
        return self.chance.choice(self.project.closure())

    def _some(self, names):
        there = [name for name in names if self._path(name).exists()]
        return self.chance.choice(there) if there else None

    def _new(self):
        self.count += 1
        return f"new{self.count}"

    # what counts

    def do_change_what_a_module_says(self):
        name = self._code()
        if self.project.own not in self._path(name).read_text():
            return None
        edited(
            self._path(name),
            lambda text: (
                text.replace(f" {self.project.own}']", f" {self.project.own} {self._new()}']", 1) + f"# {self._new()}\n"
            ),
        )
        return "changed", [name]

    def do_comment_a_module(self):
        name = self._code()
        edited(self._path(name), lambda text: text + f"# {self._new()}\n")
        return TEXT_ALONE, [name]

    def do_add_a_function(self):
        name = self._code()
        edited(self._path(name), lambda text: text + f"\n\ndef {self._new()}():\n    return 1\n")
        return TEXT_ALONE, [name]

    def do_say_what_a_function_does(self):
        name = self._code()
        edited(self._path(name), lambda text: text.replace("():\n", f"():\n    '{self._new()}'\n", 1) + "\n")
        return TEXT_ALONE, [name]

    def do_wrap_a_function(self):
        name = self._some([name for name in self.project.closure() if "/m" in name])
        if name is None or name not in self.project.closure():
            return None
        function = f"f{name.rpartition('/m')[2].removesuffix('.py')}"
        wrapped = (
            f"\n\nold_{function} = {function}\n\n\ndef {function}():\n    return [*old_{function}(), '{self._new()}']\n"
        )
        edited(self._path(name), lambda text: text + wrapped)
        return "perhaps", [name]  # where it is wrapped a second time, it calls itself for ever

    def do_define_another_modules_function(self):
        name = self._code()
        function = self.chance.choice([*self.project.modules.values()])
        edited(self._path(name), lambda text: text + f"\n\ndef {function}():\n    return ['{self._new()}']\n")
        return "perhaps", [name]

    def do_change_the_ends_of_lines(self):
        name = self._code()
        new = self._new()
        self._path(name).write_bytes(self._path(name).read_bytes().replace(b"\n", b"\r\n") + f"# {new}\r\n".encode())
        return TEXT_ALONE, [name]

    def do_keep_size_and_times(self):
        name = self._some([*self.project.data, *self.project.closure()])
        path = self._path(name)
        old, status = path.read_bytes().decode(), path.stat()
        at = self.chance.randrange(len(self.project.own))
        if self.project.own not in old:
            return None
        other = self.project.own[:at] + self.chance.choice("ghijklmn") + self.project.own[at + 1 :]
        path.write_bytes(old.replace(self.project.own, other).encode())
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert path.stat().st_size == status.st_size
        return None if path.read_bytes().decode() == old else ("changed", [name])

    def do_change_data(self):
        name = self._some(self.project.data)
        if name is None:
            return None
        new = self._new()
        edited(self._path(name), lambda text: f'["{new}"]' if text.startswith('["') else f"{text}# {new}\n")
        return "perhaps", [name]  # of a module that nobody imports it is none

    def do_swap_data(self):
        texts = [name for name in self.project.data if not self._path(name).read_text().startswith(("[", "{"))]
        if len(texts) < 2:
            return None
        one, other = (self._path(name) for name in self.chance.sample(texts, 2))
        one.rename(f"{one}.away"), other.rename(one), type(one)(f"{one}.away").rename(other)
        return "perhaps", []

    def do_add_to_a_directory(self):
        if not self.project.listed:
            return None
        name = f"{self.chance.choice(self.project.listed)}/{self._new()}.txt"
        self.project.write(name, "one more")
        return "perhaps", []

    def do_take_from_a_directory(self):
        names = [path for place in self.project.listed for path in self._path(place).glob("*.txt")]
        if not names:
            return None
        self.chance.choice(names).unlink()
        return "perhaps", []

    def do_rename_in_a_directory(self):
        names = [path for place in self.project.listed for path in self._path(place).glob("*.txt")]
        if not names:
            return None
        path = self.chance.choice(names)
        path.rename(path.with_name(f"{self._new()}.txt"))
        return "perhaps", []

    def do_write_what_was_not_there(self):
        names = [name for name in self.project.optional if not self._path(name).exists()]
        if not names:
            return None
        self.project.write(self.chance.choice(names), self._new())
        return "perhaps", []

    def do_remove_a_module(self):
        name = self._code()
        self._path(name).unlink()
        return "perhaps", []

    def do_put_a_package_before_a_module(self):
        name = self._some([name for name in self.project.closure() if "/m" in name])
        if name is None:
            return None
        function = f"f{name.rpartition('/m')[2].removesuffix('.py')}"
        self.project.write(
            f"{name.removesuffix('.py')}/__init__.py", f"def {function}():\n    return ['{self._new()}']\n"
        )
        return "perhaps", []

    def do_fill_a_namespace(self):
        if self._path("space/__init__.py").exists():
            return None
        self.project.write("space/__init__.py", f"MARK = '{self._new()}'\n")
        return "perhaps", []

    def do_change_a_migration(self):
        name = self._some(self.project.inputs)
        new = self._new()
        sign = {"py": "#", "sql": "--", "ini": "#", "txt": ""}[name.rpartition(".")[2]]
        counts = not name.endswith(".py") or "'a comment" in self._path(name).read_text()
        edited(self._path(name), lambda text: f"{text.replace('a comment', 'a comment ' + new)}\n{sign} {new}\n")
        return "changed" if counts else TEXT_ALONE, [name]

    def do_add_a_migration(self):
        new = self._new()
        if self.project.is_alembic:
            self.project._revision(new, "both", "pass")
        else:
            self.project.write(f"db/01{self.count:04}_{new}.sql", f"COMMENT ON TABLE made IS '{new}';")
        return "changed", [new]

    def do_watch_more(self):
        new = self._new()
        self.project.write(f"watched/{new}.txt", new)
        return "changed", [new]

    def do_change_a_parameter(self):
        self.count += 1
        edited(
            self._path("pyproject.toml"),
            lambda text: (
                text.replace("[tool.seeddb]", f"[tool.seeddb]\nrandom_seed = {self.count}")
                if "random_seed" not in text
                else text.replace("random_seed = ", f"random_seed = {self.count}")
            ),
        )
        return "changed", ["random seed"]

    # what does not

    def do_edit_elsewhere(self):
        name = self.chance.choice(self.project.elsewhere)
        edited(self._path(name), lambda text: f"{text}\n# {self._new()}\n")
        return "unaffected", []

    def do_add_elsewhere(self):
        place = self.chance.choice(
            ("decoy/", "tests/test_", "docs/", "", "migrations/" if self.project.is_alembic else "")
        )
        self.project.write(f"{place}{self._new()}.{self.chance.choice(('py', 'txt', 'json', 'sql'))}", "")
        return "unaffected", []

    def do_touch(self):
        name = self._some([*self.project.closure(), *self.project.inputs, *self.project.data])
        os.utime(self._path(name), (self.chance.random() * 1e9, self.chance.random() * 1e9))
        return "unaffected", []

    def do_change_permissions(self):
        name = self._some([*self.project.closure(), *self.project.inputs, *self.project.data])
        self._path(name).chmod(self.chance.choice((0o600, 0o755, 0o444)))
        return "unaffected", []

    def do_link(self):
        # To Alembic a revision is called what the file behind the link is called: it is another then.
        inputs = [name for name in self.project.inputs if "/versions/" not in name]
        name = self._some([*self.project.closure(), *inputs, *self.project.data])
        kept = self._path(f"decoy/{self._new()}.kept")
        self._path(name).rename(kept)
        self._path(name).symlink_to(kept)
        return "unaffected", []

    def do_write_anew(self):
        name = self._some([*self.project.closure(), *self.project.inputs, *self.project.data])
        data = self._path(name).read_bytes()
        self._path(name).unlink()
        self._path(name).write_bytes(data)
        return "unaffected", []


@pytest.mark.parametrize("number", range(times(20)))
def test_after_any_edit_tests_see_what_a_build_from_scratch_gives(place, server, tried, number):
    seed = int(os.environ.get("TESTS_SEED", random.randrange(2**32)))
    chance = random.Random(seed)
    print(f"seed {seed}")
    with attacked(place, server, chance) as attack:
        edits = Edits(attack.project, chance)
        attack.run()
        for _ in range(16):
            if chance.random() < 0.15:
                attack.project.restore(chance.choice(attack.built))
                kind, expected, names = "switch branches", "same", []
            else:
                was_there = all(look.template for look in attack.looks().values())
                files = attack.project.kept()
                kind, expected, names = edits.one()
                # What had no template before has none now for other reasons than this edit.
                expected = {"unaffected": "same" if was_there else "perhaps"}.get(expected, expected)
            attack.edits.append((seed, kind, names))
            if not attack.check(expected, names):
                attack.project.restore(files)
                continue
            tried(kind.replace("_", " "))
            if chance.random() < 0.25:
                attack.run()
                tried("a run of pytest that compares")


# -- edited while a run is under way -------------------------------------------------------------------

NAMES = """
    from pathlib import Path
    NAME = "old"
    DATA = (Path(__file__).parent / "data.txt").read_text()
"""
LATE_SEEDS = """
    import os, subprocess
    from sqlalchemy import text
    from pytest_seeddb import seeder

    @seeder
    def shops(session):
        if "EDIT_LATE" in os.environ:
            subprocess.run(["sh", "-c", os.environ["EDIT_LATE"]], check=True)
        from attacked.names import DATA, NAME
        session.execute(text("INSERT INTO shop (name) VALUES (:name)"), {"name": NAME + DATA})
"""
EARLY = """
    import os, subprocess
    if "EDIT_EARLY" in os.environ:
        import attacked.names
        subprocess.run(["sh", "-c", os.environ["EDIT_EARLY"]], check=True)
"""
SEES = """
    import os
    from pathlib import Path

    def test_it(seeded_connection):
        Path(os.environ["SEEN"]).write_text(seeded_connection.execute("SELECT name FROM shop").fetchone()[0])
"""
MEANWHILE = {
    "a module, after the plan was made and before it was imported": ("EDIT_LATE", "names.py", "old", "new"),
    "a module, after a conftest imported it and before the plan was made": ("EDIT_EARLY", "names.py", "old", "new"),
    "data that a module read when a conftest imported it": ("EDIT_EARLY", "data.txt", "1", "2"),
}


@pytest.mark.parametrize("case", MEANWHILE)
def test_what_is_edited_while_a_run_is_under_way_spoils_no_template(place, server, tried, case):
    when, file, old, new = MEANWHILE[case]
    place.environment = {"SEEDDB_SERVER": server.url, "SEEN": f"{place.place}/seen", "PYTHONDONTWRITEBYTECODE": "1"}
    place.write("pyproject.toml", attacks.TABLE)
    place.write("db/001_shop.sql", f"CREATE TABLE shop (id serial PRIMARY KEY, name text); -- {uuid.uuid4()}")
    for name, text in {
        "attacked/__init__.py": "",
        "attacked/names.py": NAMES,
        "attacked/data.txt": "1",
        "attacked/seeds.py": LATE_SEEDS,
        "conftest.py": EARLY,
        "test_it.py": SEES,
    }.items():
        place.write(name, text)
    place.environment[when] = f"sed -i s/{old}/{new}/ attacked/{file}"
    place.run()
    del place.environment[when]
    wanted = {"names.py": "new1", "data.txt": "old2"}[file]
    place.run()
    assert (place.place / "seen").read_text() == wanted, "what is there now"
    place.write(f"attacked/{file}", {"names.py": NAMES, "data.txt": "1"}[file])
    for _ in range(2):
        place.run()
        assert (place.place / "seen").read_text() == "old1", "what is there again"
    tried("an edit while a run was under way")
