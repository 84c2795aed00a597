"""Settling with random schemas: whatever is written, the clone comes back, or is discarded."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack

import psycopg
import pytest
from attacks import times
from handmade import Statements
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from random_schemas import schemas, workloads
from settling import assert_same, passing_bench, run, state

RANDOM = {
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    "phases": [Phase.generate, Phase.shrink],
}
WORKLOADS = st.runner().flatmap(lambda machine: workloads(machine.schema))


class OneSchema(RuleBasedStateMachine):
    """A random schema, and clones of it that go from one random workload to the next."""

    def __init__(self, server, make_plan, verdicts):
        super().__init__()
        self.server = server
        self.make_plan = make_plan
        self.verdicts = verdicts
        self.ending = ExitStack()

    @initialize(schema=schemas())
    def is_built(self, schema):
        self.schema = schema
        plan = self.make_plan(Statements("schema", schema.statements, layered=False))
        self.bench = self.ending.enter_context(passing_bench(self.server, plan))
        self.ending.callback(lambda: self.verdicts.update(self.bench.verdicts))

    @rule(workload=WORKLOADS)
    def is_put_back_after(self, workload):
        self.bench.settled(lambda address: run(address, workload))

    @rule(workload=WORKLOADS)
    def does_as_a_fresh_clone_does(self, workload):
        self.bench.settled_like_a_fresh_one(workload)

    @rule(workload=WORKLOADS)
    def is_put_back_in_the_middle_of_a_test_after(self, workload):
        leased = self.bench.pool.take(self.bench.template)
        run(leased.clone.address, workload)
        self.bench.pool.renew(leased)
        assert_same(state(leased.clone.address), self.bench.seeded, "in the middle of a test")
        self.bench.pool.give_back(leased)

    @rule(workload=WORKLOADS, statement=st.sampled_from(("SELECT 1", "BEGIN", "INSERT INTO audit VALUES (7)")))
    def is_put_back_or_discarded_with_somebody_connected_after(self, workload, statement):
        left = []

        def work(address):
            run(address, workload)
            left.append(psycopg.connect(address.conninfo, autocommit=True))
            left[0].execute(statement)

        found = self.bench.settled(work)
        left[0].close()
        assert found.verdict == "discard" or statement != "BEGIN"

    def teardown(self):
        self.ending.close()


@pytest.fixture
def try_schemas(embedded_server, make_plan):
    """Try so many schemas with so many workloads each; how often which verdict was found."""
    verdicts = Counter()

    def tried(number, each):
        chosen = settings(max_examples=number, stateful_step_count=each, **RANDOM)
        run_state_machine_as_test(lambda: OneSchema(embedded_server, make_plan, verdicts), settings=chosen)
        return verdicts

    return tried


@pytest.mark.slow
def test_whatever_is_written_to_whatever_schema_is_put_back_or_discarded(try_schemas):
    try_schemas(5, 5)


@pytest.mark.long
def test_a_thousand_workloads_on_forty_schemas_leave_nothing_behind(try_schemas):
    verdicts = try_schemas(times(40), 25)
    print(dict(verdicts))
    # Without rewinds it would prove nothing.
    assert verdicts["rewind"] > verdicts.total() / 4
