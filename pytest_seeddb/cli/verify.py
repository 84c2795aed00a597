"""``seeddb verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_seeddb.cli.options import add_command, as_json, settings_of
from pytest_seeddb.cli.progress import shown_progress

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pytest_seeddb.cli.options import Commands
    from pytest_seeddb.cli.run_verify import DumpVerdict, Verified
    from pytest_seeddb.cli.soundness import SeederFound, Soundness

_ABOUT: Final = "see whether the seeds are sound, and whether the committed dump is what the migrations make"


def add(commands: Commands) -> None:
    """Declare it."""
    verify = add_command(commands, "verify", _verify, _ABOUT)
    verify.add_argument("--dump", action="store_true", help="only the dump that the settings name")


def _verify(parsed: argparse.Namespace) -> int:
    from pytest_seeddb.cli.run_verify import verify

    found = verify(settings_of(parsed), shown_progress(), only_dump=parsed.dump)
    print(as_json(found) if parsed.json else "\n".join(_shown(found)))
    return 0 if found.holds else 1


def _shown(found: Verified) -> Iterator[str]:
    if found.seeds:
        yield from _seeds_verdict(found.seeds)
    if found.dump:
        yield from _dump_verdict(found.dump)


# -- the seeds --------------------------------------------------------------------------------------


def _seeds_verdict(found: Soundness) -> Iterator[str]:
    for each in found.seeders:
        rows = ", ".join(f"{number} {table}" for table, number in each.rows.items()) or "no rows"
        yield f"{each.step}: {rows}, {each.seconds:.2f} s"
        yield from _unlike(each)
        yield from _again(each)
    wrong = sum(not each.is_sound for each in found.seeders)
    yield f"{found.plan}/{found.profile}: {f'{wrong} unsound' if wrong else 'sound: the same rows in two builds'}"


def _unlike(found: SeederFound) -> Iterator[str]:
    for each in found.unlike:
        yield f"  not the same each time: {each.table}"
        yield from (f"    {line}" for line in each.lines)
    if found.unlike:
        yield "    draw from `random`, Faker or factory_boy, which are seeded; take dates from a parameter; sort sets"


def _again(found: SeederFound) -> Iterator[str]:
    if found.again == "same":
        if not found.claims and found.rows:
            yield "  run again, it changes nothing: it could say @seeder(idempotent=True)"
        return
    claim = "says idempotent=True, and is not: " if found.claims else ""
    yield f"  {claim}run again, it {'fails' if found.error else 'makes other rows'}"
    if not found.claims:
        return
    yield from (f"    {line}" for line in found.error.splitlines())
    for each in found.changed:
        yield f"    {each.table}"
        yield from (f"      {line}" for line in each.lines)


# -- the dump ---------------------------------------------------------------------------------------


def _dump_verdict(found: DumpVerdict) -> Iterator[str]:
    if not found.stale:
        held = f"holds all {found.migrations} migrations" if found.migrations else "needs no migration"
        yield f"{found.dump} {held}, and its schema is that of migrating from scratch"
    for what, names in (("lacks", found.lacks), ("holds in another version", found.changed)):
        if names:
            yield f"{found.dump} is stale: it {what}"
            yield from (f"  {name}" for name in names)
    if found.differences:
        yield f"{found.dump} is stale: its schema (-) is not that of migrating from scratch (+)"
        for each in found.differences:
            yield f"  {each.name}"
            yield from (f"    {line}" for line in each.lines)
    if found.left_out:
        yield f"not run when it is restored: {', '.join(f'{number} {what}' for what, number in found.left_out.items())}"
    if found.stale:
        yield "make it anew: seeddb dump, or seeddb dump --from-scratch"
