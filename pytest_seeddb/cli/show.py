"""``seeddb show``: what a template holds: its tables, the steps that wrote their rows, and how they refer to others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from psycopg import sql

from pytest_seeddb.cli.output import make_progress, show, table
from pytest_seeddb.cli.parser import settings_of
from pytest_seeddb.cli.picture import Reference, State, TableState, write_page
from pytest_seeddb.clones.opening import open_worker
from pytest_seeddb.errors import ConfigError, hide_secrets, mask, names_a_secret
from pytest_seeddb.fingerprint.recording import begin
from pytest_seeddb.seeds.planning import plan_of
from pytest_seeddb.settings.converters import did_you_mean
from pytest_seeddb.templates.contents import label, tables

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping

    import psycopg

_VALUE: Final = 40
"""Characters of a value that are shown."""
_NOT_KNOWN: Final = "not known"
# The number of the transaction that wrote a row is kept also where VACUUM has frozen it.
_WRITTEN: Final = sql.SQL("""
SELECT width_bucket(pg_snapshot_xmax(pg_current_snapshot())::text::bigint - age(xmin), {}::bigint[]), count(*)
FROM ONLY {} GROUP BY 1 ORDER BY 1
""")
_KEY: Final = """
SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY(indkey)
WHERE indisprimary AND indrelid = %s::regclass ORDER BY array_position(indkey::int2[], attnum)
"""
_REFERENCES: Final = """
SELECT n.nspname, c.relname, fn.nspname, f.relname,
    (SELECT array_agg(attname::text ORDER BY array_position(conkey, attnum)) FROM pg_attribute
     WHERE attrelid = conrelid AND attnum = ANY(conkey))
FROM pg_constraint k
JOIN pg_class c ON c.oid = conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class f ON f.oid = confrelid JOIN pg_namespace fn ON fn.oid = f.relnamespace
WHERE contype = 'f' AND conparentid = 0 ORDER BY 1, 2, conname
"""


def run(parsed: argparse.Namespace) -> int:
    """Run the command. Builds the template if there is none."""
    settings = settings_of(parsed)
    begin(settings.root)
    plan = plan_of(settings)
    page = (parsed.directory or Path.cwd()) / parsed.html if parsed.html else None
    with open_worker(settings, make_progress(parsed)) as worker:
        template = worker.template(plan)
        with worker.home(template).clones.lent(template) as clone, clone.address.connect(autocommit=True) as connection:
            steps = _steps(template.record.moments)
            names = {label(*name): name for name in tables(connection)}
            wanted = parsed.table or [*names]
            for name in wanted:
                if name not in names:
                    raise ConfigError(
                        f"The template has no table {name!r}",
                        saw=", ".join(names) or "no tables",
                        source="the option --table",
                        remedy=f"{did_you_mean(name, names)} Name a table outside of `public` with its schema".strip(),
                    )
            states = tuple(
                _table(connection, sql.Identifier(*names[name]), name, steps, parsed.rows) for name in wanted
            )
            keys = connection.execute(_REFERENCES).fetchall()
    references = (Reference(label(*key[:2]), tuple(key[4]), label(*key[2:4])) for key in keys)
    inner = tuple(key for key in references if {key.table, key.target} <= {*wanted})
    state = State(plan.name, plan.profile, template.name, states, inner)
    if page:
        write_page(state, page)
    show(parsed, state, [f"written to {page}"] if page else _lines(state), with_quiet=not page)
    return 0


def _steps(moments: Mapping[str, int]) -> dict[int, str]:
    """The steps by the first transaction number of each, in order; those that share one are told together."""
    steps: dict[int, list[str]] = {}
    for name, moment in moments.items():
        steps.setdefault(moment, []).append(name)
    return {
        moment: names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}" for moment, names in sorted(steps.items())
    }


def _table(
    connection: psycopg.Connection[Any], identifier: sql.Identifier, name: str, steps: Mapping[int, str], number: int
) -> TableState:
    names = [_NOT_KNOWN, *steps.values()]
    moments = sql.Literal([*steps])
    by = {names[at]: count for at, count in connection.execute(_WRITTEN.format(moments, identifier)).fetchall()}
    key = [sql.Identifier(column) for (column,) in connection.execute(_KEY, [identifier.as_string(connection)])]
    order = sql.SQL(" ORDER BY {}").format(sql.SQL(", ").join(key)) if key else sql.SQL("")
    query = sql.SQL("SELECT * FROM ONLY {}{} LIMIT {}").format(identifier, order, sql.Literal(number))
    cursor = connection.execute(query)
    columns = tuple(column.name for column in cursor.description or ())
    sample = tuple(
        tuple(_value(column, value) for column, value in zip(columns, row, strict=True)) for row in cursor.fetchall()
    )
    return TableState(name, sum(by.values()), by, columns, sample)


def _value(column: str, value: object) -> str:
    """A value as text, shortened; of what may be a secret, nothing."""
    if names_a_secret(column):
        return "***"
    text = f"{len(value)} bytes" if isinstance(value, bytes) else "NULL" if value is None else str(value)
    text = hide_secrets(mask(" ".join(text.split())))
    return text if len(text) <= _VALUE else f"{text[: _VALUE - 3]}..."


def _lines(state: State) -> Iterator[str]:
    yield f"template {state.plan}/{state.profile}"
    if not state.tables:
        yield "  it has no tables"
        return
    rows = [(each.name, str(each.rows), written_by(each)) for each in state.tables]
    yield from table(("table", "rows", "last written by"), rows)
    for each in state.tables:
        if each.sample:
            yield ""
            yield each.name
            yield from table(each.columns, each.sample)
    if state.references:
        yield ""
        yield "foreign keys"
        yield from (f"  {key.table} ({', '.join(key.columns)}) -> {key.target}" for key in state.references)


def written_by(state: TableState) -> str:
    """The steps that wrote a table's rows, with their numbers where there are several."""
    if len(state.by) == 1:
        return next(iter(state.by))
    return ", ".join(f"{step}: {number}" for step, number in state.by.items())
