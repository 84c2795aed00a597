from __future__ import annotations

from typing import NamedTuple

import pytest

from pytest_seeddb.errors import ConfigError
from pytest_seeddb.plugin.markers import FIXTURES, Wish, uses_a_fixture, wish_of


class Marked(NamedTuple):
    """A test with its markers, the closest first, as pytest gives them."""

    marks: list[pytest.Mark]
    nodeid: str = "test_it.py::test_it"

    def iter_markers(self, name):
        return (mark for mark in self.marks if mark.name == name)


def seeded(*arguments, **named):
    return pytest.mark.seeded(*arguments, **named).mark


def wish(*marks):
    return wish_of(Marked(list(marks)))


def refused(*arguments, **named):
    with pytest.raises(ConfigError) as caught:
        wish(seeded(*arguments, **named))
    assert caught.value.source == "test_it.py::test_it"
    return caught.value


def test_no_marker_and_a_bare_one_wish_for_the_settings():
    assert wish() == wish(seeded()) == Wish()
    assert wish().is_default


def test_other_peoples_markers_are_not_read():
    assert wish(pytest.mark.parametrize(3, 4).mark) == Wish()


@pytest.mark.parametrize("mark", [seeded("minimal"), seeded(profile="minimal")])
def test_a_profile_can_be_given_in_two_ways(mark):
    assert wish(mark) == Wish(profile="minimal")
    assert not wish(mark).is_default


def test_an_isolation_leaves_the_plan_as_it_is():
    assert wish(seeded(isolation="rollback")) == Wish(isolation="rollback")
    assert wish(seeded(isolation="rollback")).is_default


def test_everything_else_is_a_seed_parameter():
    assert wish(seeded("demo", stores=10, name=None)) == Wish("demo", None, {"stores": 10, "name": None})


def test_the_closest_marker_goes_first_and_the_others_fill_in():
    found = wish(seeded(stores=1), seeded("minimal", isolation="readonly", stores=2, shops=3), seeded("demo"))
    assert found == Wish("minimal", "readonly", {"stores": 1, "shops": 3})


def test_a_wish_is_shown_as_a_marker_is_written():
    assert Wish().shown == "seeded()"
    assert Wish("demo", "rollback", {"stores": 3}).shown == "seeded('demo', isolation='rollback', stores=3)"


def test_two_positional_arguments_are_shown_as_they_were_written():
    error = refused("one", "two", stores=3)
    assert str(error) == (
        "The marker takes one profile\n"
        "  saw:  @pytest.mark.seeded('one', 'two', stores=3)\n"
        "  from: test_it.py::test_it\n"
        "  do:   give one name: @pytest.mark.seeded('minimal')"
    )


def test_a_profile_given_twice_is_an_error():
    assert refused("one", profile="two").what == "The marker takes one profile"


@pytest.mark.parametrize("profile", [3, ["demo"], True, lambda: None])
def test_a_profile_is_a_name(profile):
    assert refused(profile).what == "The marker's profile is not a name"


@pytest.mark.parametrize("isolation", ["rolback", "", "CLONE", 3, ["clone"]])
def test_an_isolation_is_one_of_three(isolation):
    error = refused(isolation=isolation)
    assert error.what == f"isolation={isolation!r} is not allowed in the marker"
    assert error.remedy.endswith("Allowed are clone, rollback, readonly")


def test_a_keyword_that_is_nearly_ours_is_a_slip():
    assert refused(isolaton="clone").remedy == "Did you mean 'isolation'?"
    assert refused(profil="demo").remedy == "Did you mean 'profile'?"


@pytest.mark.parametrize("name", sorted(FIXTURES))
def test_each_of_our_fixtures_marks_its_test(name):
    assert uses_a_fixture(["tmp_path", name])


def test_the_sessions_chain_marks_nothing():
    assert not uses_a_fixture(["tmp_path", "seeddb_settings", "seeddb_server", "seeddb_plan", "seeddb_template"])
