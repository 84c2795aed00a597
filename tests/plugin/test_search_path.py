"""A second build finds the first one's template where the project's own code changes `sys.path`."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import uuid

import pytest
from command import QUICK, Command

pytestmark = pytest.mark.slow

TABLE = """
    [project]
    name = "paths-{own}"
    [tool.seeddb]
    {settings}
"""
ALEMBIC = {
    "alembic.ini": "[alembic]\nscript_location = migrations\nsqlalchemy.url = postgresql+psycopg://localhost/x\n",
    "migrations/versions/1.py": """
        from alembic import op
        revision, down_revision = "1", None
        def upgrade():
            op.execute("CREATE TABLE kinds (name text)")
    """,
}
ENV = """
    import os, site, sys
    from pathlib import Path
    from alembic import context
    from sqlalchemy import create_engine, text
    with create_engine(context.config.get_main_option("sqlalchemy.url")).connect() as connection:
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
        {change}
        from {module} import NAME
        connection.execute(text("INSERT INTO kinds VALUES (:name)"), {{"name": NAME}})
        connection.commit()
"""
SEEDS = """
    import os, site, sys
    from pathlib import Path
    from sqlalchemy import text
    from pytest_seeddb import seeder
    {change}
    from {module} import NAME

    @seeder
    def kinds(session):
        session.execute(text("CREATE TABLE kinds (name text)"))
        session.execute(text("INSERT INTO kinds VALUES (:name)"), {{"name": NAME}})
"""
LATER = """
    import os, sys
    from sqlalchemy import text
    from pytest_seeddb import seeder

    @seeder
    def kinds(session):
        {change}
        from {module} import NAME
        session.execute(text("CREATE TABLE kinds (name text)"))
        session.execute(text("INSERT INTO kinds VALUES (:name)"), {{"name": NAME}})
"""
HERE = "os.path.dirname(os.path.abspath(__file__))"
# What changes the path, by whom, the module that is imported, and the file that has the value.
KINDS = {
    "env.py, nested": (ENV, f"sys.path.append({HERE})", "data.kinds.names", "migrations/data/kinds/names.py"),
    "env.py, not to be told": (ENV, "sys.path[:0] = os.environ['MORE'].split(':')", "names", "lib/names.py"),
    "seeds, site": (SEEDS, "site.addsitedir(str(Path(__file__).parent / 'lib'))", "names", "shop/lib/names.py"),
    "seeds, relative": (SEEDS, "sys.path.insert(0, 'lib')", "names", "lib/names.py"),
    "a seeder, not to be told": (LATER, "sys.path.insert(0, max(['', 'lib']))", "names", "lib/names.py"),
}
SEES = """
    {imports}
    def test_it(seeded_connection):
        assert seeded_connection.execute("SELECT name FROM kinds").fetchone() == ("{value}",)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_build_finds_the_template_and_a_change_over_there_is_built(tmp_path, embedded_server, kind):
    text, change, module, file = KINDS[kind]
    has_env = text is ENV
    settings = 'migrations = "alembic.ini"' if has_env else 'seeds = ["shop.seeds"]'
    texts = {
        "pyproject.toml": TABLE.format(own=uuid.uuid4().hex[:8], settings=settings),
        file: "from deeper_in_names import NAME",
        f"{file.rpartition('/')[0]}/deeper_in_names.py": "NAME = 'before'",
        "test_it.py": SEES.format(imports="" if has_env else "import shop.seeds", value="before"),
        ("migrations/env.py" if has_env else "shop/seeds.py"): text.format(change=change, module=module),
        **(ALEMBIC if has_env else {}),
    }
    if "kinds" in module:
        texts[file] = "from .deeper_in_names import NAME"
    for name, content in texts.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(content))
    seeddb = Command(tmp_path, PYTHONDONTWRITEBYTECODE="1", MORE="lib:migrations")
    assert " built in " in seeddb("build").stdout
    assert "is there already" in seeddb("build").stdout

    options = (*QUICK, "-p", "no:asyncio", "-p", "no:django", "-o", "pythonpath=.", "--seed-db")
    variables = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "MORE": "lib:migrations"}
    command = [sys.executable, "-m", "pytest", *options]
    if not has_env:
        done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
        assert "reused" in done.stdout, "the same where tests import the seeds first\n" + done.stdout

    (tmp_path / file).parent.joinpath("deeper_in_names.py").write_text("NAME = 'after'")
    (tmp_path / "test_it.py").write_text(textwrap.dedent(SEES.format(imports="", value="after")))
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
