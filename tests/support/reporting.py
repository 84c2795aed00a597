"""Reports of runs that never were: their databases made up, all else as the plugin makes it."""

from __future__ import annotations

from pytest_seeddb.plugin import page
from pytest_seeddb.plugin.report import Tally
from pytest_seeddb.plugin.uses import Use


def use(node, afterwards="keep", **facts):
    """One test's database, put back in 1 ms."""
    known = {"isolation": afterwards if afterwards in {"rollback", "readonly"} else "clone", "taken": 0.001}
    known |= {"settled": 0.001, "seconds": 0.004, "outcome": "passed", "tests": [node], "template": "shop/default"}
    return Use(node, **{**known, "afterwards": afterwards, "wrote": [], **facts})


def change(table, inserted=0, updated=0, deleted=0):
    return {"table": table, "inserted": inserted, "updated": updated, "deleted": deleted, "is_exact": True}


def report(uses, path, *, is_on=True, exit_status=0, **facts):
    """Write the report of these uses, as a run's end does."""
    data = page.document(Tally(servers=["PostgreSQL 18"], uses=uses, **facts), exit_status, is_on=is_on)
    path.write_text(page._filled(page.masked(data), path), encoding="utf-8")
    return path
