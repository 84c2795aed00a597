"""Demo data never reaches a production database, however production is spelt and whatever is said beside it."""

from __future__ import annotations

import contextlib
import io
import os
import random
import uuid

import attacks
import psycopg
import pytest
import spellings
from attacks import times
from separate import separate_server

from pytest_seeddb import cli
from pytest_seeddb.settings.production import environment_of
from pytest_seeddb.settings.settings import Settings

ESSENTIAL, ALL = {"shop": 40, "item": 0}, {"shop": 40, "item": 400}
REFUSED = "is refused in production; no option allows it"
STATE = """
    SELECT 'table', c.oid::regclass::text, c.relfilenode::text FROM pg_class c
    WHERE relkind IN ('r', 'S') AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace,
        'pg_toast'::regnamespace)
    UNION ALL SELECT 'schema', nspname, '' FROM pg_namespace ORDER BY 1, 2, 3
"""


class Stack:
    """A project, and a database of which it only has the address."""

    def __init__(self, site, server):
        self.site = site
        self.name = f"stack_{uuid.uuid4().hex[:12]}"
        self.address = server.with_database(self.name)
        with psycopg.connect(server.conninfo, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {self.name}")

    def ask(self, statement):
        with psycopg.connect(self.address.conninfo, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def rows(self):
        return {name: self.ask(f"SELECT count(*) FROM {name}")[0][0] for name in ("shop", "item")}

    def state(self):
        """All that is in it: tables and sequences with their files and rows, schemas."""
        found = self.ask(STATE)
        return found, [self.ask(f"SELECT * FROM {name} ORDER BY 1") for kind, name, _ in found if kind == "table"]

    def environ(self, variables):
        """The environment without anything that says where this is, except these variables."""
        names = {*spellings.NAMES, "SEEDDB_ENVIRONMENT"}
        kept = {name: value for name, value in self.site.environ.items() if name.upper() not in names}
        return {**kept, "DATABASE_URL": self.address.url, **variables}

    def apply(self, *arguments, dotenv="", **variables):
        """The exit code and all that was printed, by the command's own function, in this process."""
        told = io.StringIO()
        self.site.write(".env", dotenv)
        with pytest.MonkeyPatch.context() as patch, contextlib.chdir(self.site.project):
            for name in os.environ:
                patch.delenv(name)
            for name, value in self.environ(variables).items():
                patch.setenv(name, value)
            with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
                code = cli.main(["apply", *arguments])
        return code, told.getvalue()


@pytest.fixture(scope="module")
def server():
    with separate_server() as start:
        yield start()


@pytest.fixture(scope="module")
def place():
    with attacks.site() as site:
        yield site


@pytest.fixture
def stack(place, server):
    place.table("")
    return Stack(place, server)


@pytest.fixture(scope="module")
def deployed(place, server):
    """A production database, as one without a variable finds it."""
    place.table("")
    stack = Stack(place, server)
    code, told = stack.apply("--tier", "essential", ENVIRONMENT="production")
    assert code == 0, told
    assert stack.rows() == ESSENTIAL
    return stack


def one_of_many(chance, *, also_production):
    """Several variables at once, which contradict each other."""
    values = [spellings.harmless(chance) for _ in range(chance.randrange(4))]
    return spellings.surroundings(chance, [spellings.production(chance), *values] if also_production else values)


def what_is_refused(chance):
    """Arguments that production does not take, whatever stands beside them."""
    wanted = chance.choice((["--tier", "demo"], [], ["--reset"], ["--force"], ["--profile", "big"]))
    about_seeds = ["--tier", chance.choice(("essential", "none"))] if wanted in (["--reset"], ["--force"]) else []
    values = chance.choice(([], ["--set", "items=3"], ["--profile", "big"])) if not about_seeds else []
    groups = [wanted, about_seeds, values, *([each] for each in spellings.flags(chance))]
    chance.shuffle(groups)
    return [word for group in groups for word in group]


def test_every_spelling_of_production_is_one_and_nothing_else_is(tried):
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    settings = Settings(root=None)
    for _ in range(times(20_000)):
        yes = one_of_many(chance, also_production=True)
        assert environment_of(settings, yes).is_production, (seed, yes)
        no = one_of_many(chance, also_production=False)
        assert not environment_of(settings, no).is_production, (seed, no)
    tried("spellings of where this is", 2 * times(20_000))


def test_production_refuses_whatever_is_said_beside_it_and_writes_nothing(stack, tried):
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    stack.site.table("[tool.seeddb.profiles.big]\nitems = 20\n")
    before = stack.state()
    for _ in range(times(400)):
        variables, arguments = one_of_many(chance, also_production=True), what_is_refused(chance)
        left, dotenv = spellings.moved_to_dotenv(chance, variables)
        code, told = stack.apply(*arguments, dotenv=dotenv, **left)
        assert (code, REFUSED in told) == (2, True), (seed, left, dotenv, arguments, told)
        assert stack.state() == before, (seed, left, dotenv, arguments)
    tried("an apply that production refuses, on an empty database", times(400))


def test_a_database_that_knows_that_it_is_production_refuses_whatever_the_variables_say(deployed, tried):
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    deployed.site.table("[tool.seeddb.profiles.big]\nitems = 20\n")
    before = deployed.state()
    for _ in range(times(200)):
        variables, arguments = one_of_many(chance, also_production=False), what_is_refused(chance)
        left, dotenv = spellings.moved_to_dotenv(chance, variables)
        # Without --yes an answer is wanted before anybody looks into the database; nobody is there to give it.
        expected = "no terminal on which to ask" if "--reset" in arguments else REFUSED
        code, told = deployed.apply(*arguments, dotenv=dotenv, **left)
        assert code == 2, (seed, variables, arguments, told)
        assert REFUSED in told or expected in told, (seed, variables, arguments, told)
        assert deployed.state() == before, (seed, variables, arguments)
    tried("an apply that the database's own note refuses", times(200))


def test_all_sets_of_flags_in_processes_of_their_own(deployed, tried):
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    deployed.site.table("")
    before = deployed.state()
    chosen = chance.sample(list(spellings.all_flags()), times(40))
    for flags in chosen:
        deployed.site.environment = deployed.environ({"APP_ENV": spellings.production(chance), "ENV": "dev"})
        done = deployed.site.command("apply", *flags, code=2)
        assert REFUSED in done.stderr, (seed, flags, done.stderr)
    assert deployed.state() == before
    tried("sets of flags in a process of its own", len(chosen))


def test_what_is_clearly_elsewhere_gets_all_that_it_asks_for(place, server, tried):
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    place.table("")
    for _ in range(times(20)):
        stack, variables = Stack(place, server), one_of_many(chance, also_production=False)
        left, dotenv = spellings.moved_to_dotenv(chance, variables)
        for arguments in ([], ["--force", "--reset", "--yes"], ["--reset", "--yes"]):
            code, told = stack.apply(*arguments, dotenv=dotenv, **left)
            assert code == 0, (seed, left, dotenv, arguments, told)
            assert stack.rows() == ALL, (seed, left, dotenv, arguments)
    tried("an apply with everything, elsewhere", 3 * times(20))


def test_production_gets_its_essential_seeds(place, server, tried):
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    place.table("")
    for _ in range(times(20)):
        stack, variables = Stack(place, server), one_of_many(chance, also_production=True)
        left, dotenv = spellings.moved_to_dotenv(chance, variables)
        for arguments in (
            ["--tier", "none"],
            ["--tier", "essential"],
            ["--profile", "essential"],
            ["--profile", "essential", "--accept"],
        ):
            code, told = stack.apply(*arguments, dotenv=dotenv, **left)
            assert code == 0, (seed, left, dotenv, arguments, told)
        assert stack.rows() == ESSENTIAL
        code, told = stack.apply()
        assert (code, "the marker of the database" in told) == (2, True), (seed, variables, told)
        assert stack.rows() == ESSENTIAL
    tried("a deployment, and demo data for it without the variable", times(20))


# -- the application's own value ---------------------------------------------------------------------


HOLDERS = {
    "text": ("{value}", "value"),
    "an attribute": ("type('Settings', (), {{'environment': {value}}})()", "value.environment"),
    "a member of an Enum": ("enum.Enum('Stage', {{'ONE': {value}}}).ONE", "value"),
    "a function's": ("lambda: {value}", "value"),
    "an attribute of what a cached function gives": (
        "functools.lru_cache(lambda: type('Settings', (), {{'environment': {value}}}))",
        "value.environment",
    ),
}


def test_what_the_application_says_counts_in_whatever_form(stack, tried):
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    before = stack.state()
    for number in range(times(200)):
        holder, path = chance.choice([*HOLDERS.values()])
        name = f"config_{uuid.uuid4().hex}"
        is_production = number % 2 == 0
        value = (spellings.production if is_production else spellings.harmless)(chance)
        stack.site.write(f"{name}.py", f"import enum, functools\nvalue = {holder.format(value=repr(value))}\n")
        stack.site.table(f'environment = "{name}:{path}"')
        left, dotenv = spellings.moved_to_dotenv(chance, one_of_many(chance, also_production=False))
        arguments = what_is_refused_by_default(chance) if is_production else ["--dry-run", *spellings.flags(chance)]
        code, told = stack.apply(*arguments, dotenv=dotenv, **left)
        assert (code, REFUSED in told) == ((2, True) if is_production else (0, False)), (seed, holder, value, told)
        assert stack.state() == before, (seed, holder, value)
    tried("values of the application", times(200))


BROKEN = (
    "import nowhere",
    "raise SystemExit(0)",
    "value = object()",
    "value = 3",
    "",
    "value = [",
    "def value(x): ...",
)


def test_an_application_that_cannot_say_where_it_is_refuses_as_production_does(stack, tried):
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    before = stack.state()
    for text in BROKEN:
        for _ in range(times(5)):
            name = f"config_{uuid.uuid4().hex}"
            stack.site.write(f"{name}.py", text)
            stack.site.table(f'environment = "{name}:value"')
            left, dotenv = spellings.moved_to_dotenv(chance, one_of_many(chance, also_production=False))
            code, told = stack.apply(*what_is_refused_by_default(chance), dotenv=dotenv, **left)
            assert (code, "because this may be production" in told) == (2, True), (seed, text, told)
            assert stack.state() == before, (seed, text)
    tried("applications that cannot say where they are", len(BROKEN) * times(5))


# -- settings ----------------------------------------------------------------------------------------


NO_VARIABLE = "The setting `environment` has a value that is not allowed"


def test_a_setting_that_names_the_variable_counts_and_so_does_one_that_says_production_instead(stack, tried):
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    before = stack.state()
    for _ in range(times(20)):
        value = spellings.production(chance)
        word = chance.choice(("production", "Production", "PROD", "live", "prod-eu"))
        cases = {
            "named by the table": ('environment = "DEPLOYED_TO"', {"DEPLOYED_TO": value}),
            "one of several": ('environment = ["A", "DEPLOYED_TO"]', {"A": "dev", "DEPLOYED_TO": value}),
            "named by a variable": ("", {"SEEDDB_ENVIRONMENT": "A, DEPLOYED_TO", "DEPLOYED_TO": value}),
            "in the table itself": (f'environment = "{word}"', {"ENVIRONMENT": "dev"}),
            "in the table's variable": ("", {"SEEDDB_ENVIRONMENT": word, "APP_ENV": "dev"}),
            "in .env": ('environment = "DEPLOYED_TO"', {"DEPLOYED_TO": "dev"}),
            "a switch": ('environment = "IS_PRODUCTION"', {"IS_PRODUCTION": chance.choice(("1", "true", "Yes"))}),
        }
        for case, (table, variables) in cases.items():
            stack.site.table(table)
            dotenv = f"DEPLOYED_TO={spellings.dotenv_value(chance, value)}" if case == "in .env" else ""
            code, told = stack.apply(*what_is_refused_by_default(chance), dotenv=dotenv, **variables)
            refused = REFUSED in told or NO_VARIABLE in told  # "prod-eu" is no name of one
            assert (code, refused) == (2, True), (seed, case, variables, told)
            assert stack.state() == before, (seed, case)
            tried("settings that say where this is")


def what_is_refused_by_default(chance):
    return chance.choice(([], ["--force"], ["--reset", "--yes"], ["--tier", "demo"]))


def test_a_switch_that_is_off_is_not_production(stack):
    stack.site.table('environment = "IS_PRODUCTION"')
    code, told = stack.apply(IS_PRODUCTION="false", ENVIRONMENT="production")
    assert code == 0, told
    assert stack.rows() == ALL


@pytest.mark.parametrize("where", ["the table", "a profile's table", "the environment", "the command line"])
def test_no_way_to_ask_for_the_demo_tier_goes_round_it(stack, where):
    table, arguments, variables = {
        "the table": ('profile = "big"\n[tool.seeddb.profiles.big]\nitems = 3\n', [], {}),
        "a profile's table": ("[tool.seeddb.profiles.essential]\nitems = 3\n", ["--profile", "essential"], {}),
        "the environment": ("[tool.seeddb.profiles.big]\nitems = 3\n", [], {"SEEDDB_PROFILE": "big"}),
        "the command line": ('profile = "essential"\n', ["--tier", "demo"], {}),
    }[where]
    stack.site.table(table)
    before = stack.state()
    code, told = stack.apply(*arguments, ENVIRONMENT="production", **variables)
    assert (code, "Demo data is refused in production" in told) == (2, True), told
    assert stack.state() == before


WITH_A_DUMP = 'dump = "shop.sql"\nprofile = "essential"\n'

# -- dumps -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["shop.sql", "shop.sql.gz", "shop.dump", "shop.dir"])
def test_a_dump_that_holds_demo_data_is_demo_data_in_every_format(stack, form):
    file = stack.site.project / form
    stack.site.environment = {}
    stack.site.command("dump", "--output", str(file), *(["--format", "directory"] if form.endswith("dir") else []))
    stack.site.table(f'dump = "{form}"')
    before = stack.state()
    for arguments in ([], ["--accept"], ["--tier", "essential", "--force"], ["--dry-run"]):
        code, told = stack.apply(*arguments, ENVIRONMENT="production")
        assert (code, REFUSED in told) == (2, True), told
        assert stack.state() == before


def test_a_dump_does_not_make_a_database_forget_that_it_is_production(stack):
    stack.site.environment = {}
    stack.site.command("dump", "--profile", "essential", "--output", str(stack.site.project / "shop.sql"))
    stack.site.write("broken.sql", "SELECT 1 / 0;")
    stack.site.write("pyproject.toml", attacks.TABLE.replace('["', '["broken.sql", "'))
    stack.site.write("pyproject.toml", (stack.site.project / "pyproject.toml").read_text() + WITH_A_DUMP)
    code, told = stack.apply(ENVIRONMENT="production")
    assert (code, "broken.sql" in told) == (1, True), told
    assert stack.rows() == ESSENTIAL
    stack.site.write("broken.sql", "SELECT 1;")
    for arguments in (["--profile", "default"], ["--force"], ["--reset", "--yes"]):
        code, told = stack.apply(*arguments)
        assert (code, "the marker of the database" in told) == (2, True), told
