"""What says that this is production: variables, `.env`, the setting itself, the application's own value."""

from __future__ import annotations

import enum

import pytest

from pytest_seeddb.settings.dotenv import read_dotenv
from pytest_seeddb.settings.production import NOWHERE, Environment, environment_from, environment_of
from pytest_seeddb.settings.settings import Settings

PATH = "app.config:settings.environment"


def of(tmp_path, dotenv="", environ=None, application=NOWHERE, **settings):
    (tmp_path / ".env").write_text(dotenv)
    environ = environ or {}
    lines = read_dotenv(tmp_path, environ)
    return environment_of(Settings(root=tmp_path).replace(**settings), environ, lines, lambda _: application)


@pytest.mark.parametrize(
    "line",
    [
        "ENVIRONMENT=production",
        "export APP_ENV='Prod'",
        'env = "eu-live"  # the shop',
        "DJANGO_ENV=${STAGE:-production}",
        "STAGE=prd\nFLASK_ENV=$STAGE-${STAGE}",
        "\n\n  environment=production",
    ],
)
def test_a_line_of_dotenv_that_says_production_counts_whatever_the_environment_says(tmp_path, line):
    for environ in ({}, {"ENVIRONMENT": "development", "APP_ENV": "staging"}):
        environment = of(tmp_path, line, environ)
        assert environment.is_production
        number = line.count("\n") + 1
        assert environment.source.endswith(f"in {tmp_path / '.env'}, line {number}")


def test_a_variable_that_stands_for_another_is_production_if_either_the_file_or_the_environment_says_so(tmp_path):
    for own, others in (("dev", "prod"), ("prod", "dev")):
        assert of(tmp_path, f"STAGE={own}\nENV=${{STAGE}}", {"STAGE": others}).is_production
    assert not of(tmp_path, "STAGE=dev\nENV=${STAGE}", {"STAGE": "qa"}).is_production


@pytest.mark.parametrize("line", ["# ENVIRONMENT=production", "ENVIRONMENT=", "ENVIRONMENT", "OTHER=production", ""])
def test_a_line_of_dotenv_that_sets_nothing_says_nothing(tmp_path, line):
    assert of(tmp_path, line) == NOWHERE
    assert of(tmp_path, line, {"ENVIRONMENT": "production"}).is_production


def test_the_environment_is_named_by_its_variable_before_dotenv(tmp_path):
    assert of(tmp_path, "ENVIRONMENT=staging", {"ENVIRONMENT": "qa"}).name == "qa"
    assert of(tmp_path, "ENVIRONMENT=staging").name == "staging"


def test_a_switch_in_dotenv_is_off_only_if_no_place_switches_it_on(tmp_path):
    for dotenv, variable, expected in (
        ("IS_PROD=false", None, False),
        ("IS_PROD=true", None, True),
        ("IS_PROD=true", "false", True),
        ("IS_PROD=no", "1", True),
        ("IS_PROD=no", "0", False),
        ("", None, True),
    ):
        environ = {"IS_PROD": variable} if variable else {}
        assert of(tmp_path, dotenv, environ, environment="IS_PROD").is_production == expected, (dotenv, variable)


def test_a_word_in_the_setting_says_what_it_is_and_takes_no_variables_place(tmp_path):
    assert of(tmp_path, environment="demo").name == "demo"
    assert of(tmp_path, "ENVIRONMENT=production", environment="demo").is_production
    assert of(tmp_path, "", {"APP_ENV": "production"}, environment="demo").is_production
    assert of(tmp_path, environment="DEMO") == NOWHERE  # the name of a variable
    assert not of(tmp_path, "ENVIRONMENT=production", environment="DEPLOYED_TO").is_production


def test_the_applications_own_value_counts_beside_the_variables(tmp_path):
    production, other = Environment("prod", "the application"), Environment("dev", "the application")
    assert of(tmp_path, "", {"ENV": "dev"}, production, environment=PATH) == production
    assert of(tmp_path, "", {"ENV": "production"}, other, environment=PATH).is_production
    assert of(tmp_path, "", {}, other, environment=PATH) == other
    assert of(tmp_path, "", {"ENV": "production"}, other, environment=[PATH, "DEPLOYED_TO"]) == other


def test_a_doubt_goes_before_all_but_production(tmp_path):
    doubt = Environment("", "the application", doubt="it fails")
    assert of(tmp_path, "ENV=dev", {}, doubt, environment=PATH) == doubt
    assert of(tmp_path, "ENV=prod", {}, doubt, environment=PATH).is_production


class Stage(enum.Enum):
    PRODUCTION = "p1"
    LIVE = 3
    OTHER = "dev"


class Text(enum.StrEnum):
    MAIN = "production"


@pytest.mark.parametrize("value", ["production", "eu-live", Stage.PRODUCTION, Stage.LIVE, Text.MAIN])
def test_a_value_of_the_application_may_be_text_or_a_member_of_an_enum(value):
    assert environment_from(value, PATH, "here").is_production
    assert environment_from(Stage.OTHER, PATH, "here").name == "dev"
    assert environment_from(None, PATH, "here") == environment_from(" ", PATH, "here") == NOWHERE


@pytest.mark.parametrize(
    ("value", "is_production"),
    [(True, True), (1, True), ("yes", True), (False, False), (0, False), ("off", False)],
)
def test_a_value_whose_name_says_production_is_a_switch(value, is_production):
    environment = environment_from(value, "app.config:settings.is_production", "here")
    assert (environment.is_production, bool(environment.name)) == (is_production, True)


@pytest.mark.parametrize("value", [True, 0, 1.5, {"environment": "dev", "key": "s3cret"}, object(), ["dev"]])
def test_a_value_that_names_nothing_is_a_doubt_and_is_not_shown(value):
    environment = environment_from(value, PATH, "here")
    assert environment.doubt == f"its type is {type(value).__name__}, which does not name an environment"
    assert not environment.name
    assert "s3cret" not in repr(environment)


@pytest.mark.parametrize(
    "line",
    [
        "DJANGO_SETTINGS_MODULE=config.settings.production",
        "DJANGO_SETTINGS_MODULE='shop.settings_prod'",
        *("DJANGO_CONFIGURATION=Production", "APP_ENVIRONMENT=production", "NODE_ENV=production", "STAGE=prod"),
        *("DEPLOY_ENV=prod", "SENTRY_ENVIRONMENT=production", "ENV=euprod", "ENV=produktion", "env=PRODUCCI\u00d3N"),
    ],
)
def test_a_usual_name_says_production_without_being_in_the_setting(tmp_path, line):
    assert of(tmp_path, line).is_production
    assert of(tmp_path, line, {"ENVIRONMENT": "dev"}).is_production
    name, _, value = line.replace("'", "").partition("=")
    assert of(tmp_path, "", {name: value}).is_production
    assert not of(tmp_path, line, environment="DEPLOYED_TO").is_production
    assert of(tmp_path, line, environment="demo").is_production


@pytest.mark.parametrize(
    "line",
    [
        *("DJANGO_SETTINGS_MODULE=production.settings", "NODE_ENV=development", "STAGE=preprod", "STAGE=nonprod"),
        *("VIRTUAL_ENV=production", "TARGET_ENV=/srv/live/env", "SEEDDB_ENVIRONMENT=IS_PROD", "MY_ENVS=production"),
        *("DEPLOY_ENV=notproduction", "ENV_FILE=production", "STAGE=alive"),
    ],
)
def test_other_names_and_values_say_nothing(tmp_path, line):
    assert of(tmp_path, line) == NOWHERE
