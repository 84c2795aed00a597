"""``seeddb explain``: what determines a template, and what differs from the last build."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_seeddb.cli.output import as_json
from pytest_seeddb.cli.parser import settings_of
from pytest_seeddb.clones.worker import open_worker
from pytest_seeddb.seeds.planning import plan_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pytest_seeddb.settings.settings import Settings


def run(parsed: argparse.Namespace) -> int:
    """Run the command. Builds nothing."""
    settings = settings_of(parsed)
    result, lines = (_comparison if parsed.diff else _explanation)(settings)
    print(result["fingerprint"] if parsed.digest else as_json(result) if parsed.json else "\n".join(lines))
    return 0


def _explanation(settings: Settings) -> tuple[dict[str, Any], Iterator[str]]:
    plan = plan_of(settings)
    with open_worker(settings) as worker:
        server = worker.server
        look = worker.look(plan)
    explanation = {
        "plan": plan.name,
        "profile": plan.profile,
        "server": f"PostgreSQL {server.version} ({server.kind}, {server.origin})",
        "fingerprint": look.fingerprints[-1],
        "template": look.template,
        "reason": look.reason,
        "settings": {key: settings.source(key) for key in settings.sources},
        "steps": [
            {"name": name, "fingerprint": fingerprint, "parts": parts}
            for (name, parts), fingerprint in zip(look.steps, look.fingerprints, strict=True)
        ],
    }
    return explanation, _explanation_lines(explanation)


def _explanation_lines(explanation: dict[str, Any]) -> Iterator[str]:
    yield from (f"{key:<11} {explanation[key]}" for key in ("plan", "profile", "server"))
    yield from (f"setting     {key} from {source}" for key, source in explanation["settings"].items())
    for step in explanation["steps"]:
        yield ""
        yield f"{step['fingerprint'][:12]}  {step['name']}"
        yield from (f"    {part.digest:<16}  {part.name}" for part in step["parts"])
    yield ""
    yield f"fingerprint {explanation['fingerprint']}"
    template = explanation["template"] or f"none; next run builds: {explanation['reason']}"
    yield f"template    {template}"


def _comparison(settings: Settings) -> tuple[dict[str, Any], Iterator[str]]:
    plan = plan_of(settings)
    with open_worker(settings) as worker:
        compared = worker.compare(plan)
    built, differences = (compared.before.created, compared.differences) if compared else ("", ())
    comparison = {"plan": plan.name, "profile": plan.profile, "built": built, "differences": differences}
    return comparison, _comparison_lines(comparison)


def _comparison_lines(comparison: dict[str, Any]) -> Iterator[str]:
    yield from (f"{key:<11} {comparison[key]}" for key in ("plan", "profile"))
    if not comparison["built"]:
        yield "last build  none: the next run builds this plan and profile for the first time"
        return
    yield f"last build  {comparison['built'][:19].replace('T', ' ')} UTC"
    for difference in comparison["differences"]:
        values = " -> ".join(filter(None, (difference.before, difference.after)))
        others = f" and {len(difference.steps) - 1} more" if len(difference.steps) > 1 else ""
        steps = f"  ({difference.steps[0]}{others})" if difference.steps else ""
        yield f"{difference.kind:<11} {difference.name}{f': {values}' if values else ''}{steps}"
    if not comparison["differences"]:
        yield "no difference"
