"""Fixtures for tests of what happens on a server."""

from __future__ import annotations

import uuid

import psycopg
import pytest
from handmade import Statements

from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.plan.plan import Plan


@pytest.fixture
def server(embedded_server):
    return embedded_server


@pytest.fixture
def worker(server):
    with Worker(server) as worker:
        yield worker


@pytest.fixture
def make_plan(tmp_path, request):
    # Templates are found by what made them, whoever made them: each test needs a first step of its own.
    own = Statements(request.node.nodeid, [f"SELECT '{uuid.uuid4()}'"], layered=False)

    def make(*stages, name=None, profile="default"):
        return Plan(name or request.node.name, profile, tmp_path, tuple(each.stage() for each in (own, *stages)))

    return make


@pytest.fixture
def databases(server_address):
    """What is on the server, as a function."""

    def listed(pattern="seeddb%"):
        with psycopg.connect(server_address.conninfo) as connection:
            rows = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE %s", [pattern])
            return {row[0] for row in rows}

    return listed
