"""Databases of ours made by hand, empty and of any age: copying files is all that takes time here."""

from __future__ import annotations

import datetime as dt
from itertools import count

from pytest_seeddb.servers.naming import build_name, clone_name, kept_name, new_lease, template_name
from pytest_seeddb.templates.inventory import owner_note
from pytest_seeddb.templates.record import Record

_numbers = count(1)


def day(ago):
    return (dt.datetime.now(dt.UTC) - dt.timedelta(days=ago)).date().isoformat()


def make_template(admin, plan="shop", *, used=0, comment=None, projects=(), **fields):
    """A template that was last used so many days ago; no projects is what earlier versions noted."""
    fingerprint = f"{next(_numbers):064x}"
    name = template_name(plan, fingerprint, new_lease())
    created = f"{day(used)}T00:00:00.{next(_numbers):06}+00:00"
    record = Record(plan, "default", fingerprint, (), created=created, used=day(used), projects=projects, **fields)
    admin.create(build := build_name(new_lease(), 1))
    admin.publish(build, name, lambda _: record.to_json() if comment is None else comment)
    return name


def make_orphan(admin, kind=clone_name, lease=None):
    """A clone, or an unfinished build, of a lease that nobody holds unless it is given."""
    name = kind(lease or new_lease(), next(_numbers))
    admin.create(name)
    return name


def make_kept(admin, *, ago=0, plan="", project=""):
    """The database of a test that failed so many days ago; empty is what earlier versions noted of its plan."""
    moment = day(ago).replace("-", "") + "010203"
    name = kept_name(moment, clone_name(new_lease(), next(_numbers)))
    admin.create(name)
    if plan:
        admin.comment(name, owner_note(plan, project))
    return name
