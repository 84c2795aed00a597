from __future__ import annotations

import pickle

import pytest

from pytest_seeddb.errors import (
    BuildError,
    BulkError,
    CloneError,
    ConfigError,
    SeedDbError,
    ServerError,
    mask,
    mentions_a_secret,
    names_a_secret,
)


def test_the_whole_text_answers_in_one_order():
    error = BuildError("The seeder failed", saw="one\ntwo\n", source="seeds in x.toml", remedy="mend it")
    assert str(error) == ("The seeder failed\n  saw:  one\n        two\n  from: seeds in x.toml\n  do:   mend it")


def test_an_answer_that_is_missing_has_no_line():
    assert str(ServerError("No server", remedy="start one")) == "No server\n  do:   start one"
    assert str(ServerError("No server")) == "No server"


@pytest.mark.parametrize("kind", [ConfigError, ServerError, BuildError, BulkError, CloneError])
def test_every_kind_can_be_caught_at_once_and_travels_between_processes(kind):
    error = kind("what postgresql://a:s3cret@h/d", saw="saw\nmore", source="from", remedy="do")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps(error, protocol)
        assert b"s3cret" not in data
        back = pickle.loads(data)
        assert type(back) is kind
        assert isinstance(back, SeedDbError)
        assert (str(back), back.what, back.saw, back.source, back.remedy) == (
            str(error),
            error.what,
            error.saw,
            error.source,
            error.remedy,
        )


SECRETS = {
    "postgresql://app:s3cret@db/shop": "postgresql://app:***@db/shop",
    "postgresql+asyncpg://app:s3cret@[::1]:5432/shop": "postgresql+asyncpg://app:***@[::1]:5432/shop",
    "POSTGRES://app:s3cret@db": "POSTGRES://app:***@db",
    "postgresql://:s3cret@db/shop": "postgresql://:***@db/shop",
    "postgresql://app:s3c@ret@db/shop": "postgresql://app:***@db/shop",
    "postgresql://app:s3c:ret@db/shop": "postgresql://app:***@db/shop",
    "postgresql://app:s3c/ret@db/shop": "postgresql://app:***@db/shop",
    "postgresql://app:s3c?ret@db/shop x@y": "postgresql://app:***@db/shop x@y",
    "postgresql://app:0s3c/1@db/shop?host=a@b": "postgresql://app:***@b",
    "postgresql://app:s3cret@db/shop?host=a@b": "postgresql://app:***@db/shop?host=a@b",
    "postgresql://app:s3cret%40@db/shop?sslmode=require": "postgresql://app:***@db/shop?sslmode=require",
    "'postgresql://app:s3cret@db/shop', 'x@y'": "'postgresql://app:***@db/shop', 'x@y'",
    "from postgresql://a:s3cret@db/x and postgresql://b:s3cret@db/y": (
        "from postgresql://a:***@db/x and postgresql://b:***@db/y"
    ),
    "postgresql:///shop?user=app&password=s3cret&host=/tmp": "postgresql:///shop?user=app&password=***&host=/tmp",
    "host=db password=s3cret dbname=x": "host=db password=*** dbname=x",
    "host=db password='s3 c\\'ret' dbname=x": "host=db password=*** dbname=x",
    "host=db password = s3cret": "host=db password = ***",
    'password="s3 cret" x': "password=*** x",
    "PGPASSWORD=s3cret psql": "PGPASSWORD=*** psql",
    "PASSWORD: s3cret": "PASSWORD: ***",
    "{'password': 's3cret', 'user': 'app'}": "{'password': ***, 'user': 'app'}",
    '{"PGPASSWORD": "s3cret"}': '{"PGPASSWORD": ***}',
    "sslpassword=s3cret": "sslpassword=***",
    "connect(password=s3cret)": "connect(password=***)",
    'host=db password=s3c"ret x': "host=db password=*** x",
    "host=db password='x's3cret, x": "host=db password=***, x",
    "host=db password='x;s3c'ret": "host=db password=***",
    "host=db password=x&s3c\\ ret": "host=db password=***",
    "?password=x&s3cret&user=app": "?password=***&user=app",
}


@pytest.mark.parametrize("text", SECRETS)
def test_a_password_is_masked_in_every_spelling(text):
    assert mask(text) == SECRETS[text]
    error = ConfigError(text, saw=text, source=text, remedy=text)
    for shown in (str(error), repr(error), *error.args, error.what, error.saw, error.source, error.remedy):
        assert "s3c" not in shown


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://app@db:5432/shop",
        "postgresql://db:5432/shop?host=a@b",
        "postgresql:///shop?host=/tmp",
        'password authentication failed for user "app"',
        "correct the user or the password in the URL",
        "mail x@y.example at 12:30",
        "shop.db:engine and user@host",
    ],
)
def test_text_without_a_password_stays_as_it_is(text):
    assert mask(text) == text


@pytest.mark.parametrize(
    "names",
    [
        "admin_password PGPASSWORD db_pass DB_PASS PASS pwd SMTP_PWD passphrase PASSPHRASE passcode dbPass adminPwd",
        "admin_pin ADMIN_PIN pin PIN2 adminPIN otp OTP_SEED salt jwt seed_phrase SeedPhrase REDIS_AUTH AUTH tls-cert",
        "STRIPE_KEY ACCESS_KEY private_key apikey api-key APIKey stripeKey SSH_KEYS access_key_id db_creds",
    ],
)
def test_a_name_says_that_its_value_is_a_secret(names):
    assert [name for name in names.split() if not names_a_secret(name)] == []


def test_other_names_do_not():
    names = (
        "key keys primary_key foreignKey sort_key partition-key public_key monkey keyboard dsn stores compass bypass"
    )
    names += " spin opinion author auth_user AUTH_USER_MODEL certainty passes passenger pint basalt keyword KEY_PREFIX"
    assert [name for name in names.split() if names_a_secret(name)] == []


def test_a_text_mentions_secrets_where_a_name_in_it_does():
    assert mentions_a_secret("DB_PASS = '123456'")
    assert mentions_a_secret("INSERT INTO users (name, admin_pin) VALUES ('a', '1234')")
    assert not mentions_a_secret("try:\n    run()\nexcept OSError:\n    pass")
    assert not mentions_a_secret("CREATE TABLE k (id int PRIMARY KEY, a int REFERENCES b (id) ON DELETE NO KEY)")
