"""A failure that many tests meet costs the last of them no more than the first."""

from __future__ import annotations

import pytest

WATCH = """
    import pytest

    def chain(error):
        while error is not None:
            yield error
            error = error.__cause__ or error.__context__

    def frames(traceback):
        while traceback is not None:
            yield traceback
            traceback = traceback.tb_next

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(item, call):
        if call.excinfo is not None:
            lengths = [len(list(frames(error.__traceback__))) for error in chain(call.excinfo.value)]
            with open("frames.txt", "a") as out:
                print(item.originalname, call.excinfo.typename, lengths, file=out)
        return (yield)
"""
TESTS = """
    import pytest

    @pytest.mark.parametrize("number", range(4))
    def test_default(seeded_db, number):
        pass

    @pytest.mark.parametrize("number", range(4))
    @pytest.mark.seeded(shops=1)
    def test_marked(seeded_db, number):
        pass

    @pytest.mark.parametrize("number", range(4))
    def test_factory(seeded_db_factory, number):
        with seeded_db_factory(shops=2):
            pass
"""
OVERRIDE = """
    @pytest.fixture(scope="session")
    def seeddb_settings(seeddb_settings):
        return {}
"""
KINDS = {
    "a build that fails": ("BuildError", ""),
    "a server that is not there": (
        "ServerError",
        'seeddb_settings.replace(server="postgresql://nobody@127.0.0.1:1/nothing")',
    ),
    "a plan that cannot be made": ("ConfigError", 'seeddb_settings.replace(seeds=("little.nowhere",))'),
    "settings that are none": ("ConfigError", "None"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_traceback_of_a_failure_is_no_longer_for_the_last_test_that_meets_it(project, kind):
    error, settings = KINDS[kind]
    project.seeders()
    project.write("db/002_broken.sql", "SELECT 1 / 0;")
    project.write("conftest.py", WATCH + OVERRIDE.format(settings) * bool(settings))
    result = project.test(TESTS, "-p", "no:randomly", "-p", "no:xdist")
    result.assert_outcomes(errors=12 if settings else 8, failed=0 if settings else 4)
    lines = (project.path / "frames.txt").read_text().splitlines()
    for test in ("test_default", "test_marked", "test_factory"):
        _, second, *others = [line for line in lines if line.startswith(f"{test} {error}")]
        assert len(others) == 2
        assert {second, *others} == {second}, lines
