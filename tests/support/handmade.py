"""Plans made by hand, for tests that need neither Alembic nor seeders."""

from __future__ import annotations

import psycopg

from pytest_seeddb.errors import BuildError
from pytest_seeddb.fingerprint.digests import Part
from pytest_seeddb.plan.plan import Progress, Stage, Step


class Heard(Progress):
    """Keeps the names of the steps that ran."""

    def __init__(self):
        self.steps = []

    def step(self, step):
        self.steps.append(step.name)


class Statements:
    """A stage whose steps are SQL statements; counts what it ran."""

    def __init__(self, name, statements, *, layered=True):
        self.name = name
        self.statements = list(statements)
        self.layered = layered
        self.ran = []

    def stage(self):
        steps = tuple(
            Step(f"{self.name} {number}", (Part("sql", text),)) for number, text in enumerate(self.statements)
        )
        return Stage(self.name, steps, self.run, layered=self.layered)

    def run(self, target, first):
        with psycopg.connect(target.address.conninfo, autocommit=True) as connection:
            for text in self.statements[first:]:
                self.ran.append(text)
                try:
                    connection.execute(text)
                except psycopg.Error as error:
                    raise BuildError("A statement failed", saw=str(error)) from error
