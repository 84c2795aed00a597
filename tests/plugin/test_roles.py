"""The application's connections have the role that its own URL names, and see what that role sees."""

from __future__ import annotations

import pytest
from clinic import Clinic

pytestmark = pytest.mark.slow

SCHEMA = """
    DO $$ BEGIN CREATE ROLE shop_app LOGIN PASSWORD 'x'; EXCEPTION WHEN duplicate_object THEN END $$;
    CREATE TABLE item (id int, tenant int);
    CREATE TABLE forgotten (id int);
    GRANT SELECT ON item TO shop_app;
    ALTER TABLE item ENABLE ROW LEVEL SECURITY;
    CREATE POLICY p ON item USING (tenant = 1);
"""
APP = """
    from sqlalchemy import create_engine
    from sqlalchemy.ext.asyncio import create_async_engine
    SYNC = {driver: create_engine(f"postgresql+{driver}://shop_app:x@db.example/shop")
            for driver in ("psycopg", "psycopg2", "pg8000")}
    psycopg, psycopg2, pg8000 = SYNC.values()
    asyncpg = create_async_engine("postgresql+asyncpg://shop_app:x@db.example/shop")
    owner = create_engine("postgresql+psycopg://postgres@db.example/shop")
    nobody = create_engine("postgresql+psycopg://nobody_made_me@db.example/shop")
"""
NAMES = ("psycopg", "psycopg2", "pg8000", "asyncpg", "owner", "nobody")


@pytest.fixture
def shop(project):
    project.write("db/002_roles.sql", SCHEMA)
    project.write("seeds/items.sql", "INSERT INTO item VALUES (1, 1), (2, 2);")
    project.table(f"engines = {[f'app:{name}' for name in NAMES]}")
    project.write("app.py", APP)
    return project


def test_each_driver_sees_what_the_role_sees(shop):
    result = shop.test(
        """
        import asyncio, pytest, app
        from sqlalchemy import text
        pytestmark = pytest.mark.seeded

        @pytest.mark.parametrize("driver", app.SYNC)
        def test_sync(driver):
            with app.SYNC[driver].connect() as connection:
                assert connection.scalar(text("SELECT current_user")) == "shop_app"
                assert connection.scalar(text("SELECT count(*) FROM item")) == 1
                with pytest.raises(Exception, match="permission denied"):
                    connection.execute(text("SELECT * FROM forgotten"))

        def test_async():
            async def main():
                async with app.asyncpg.connect() as connection:
                    assert await connection.scalar(text("SELECT current_user")) == "shop_app"
                    assert await connection.scalar(text("SELECT count(*) FROM item")) == 1
            asyncio.run(main())

        @pytest.mark.parametrize("engine", [app.owner, app.nobody])
        def test_a_role_that_the_plan_knows_nothing_of_changes_nothing(engine):
            with engine.connect() as connection:
                assert connection.scalar(text("SELECT count(*) FROM item")) == 2
                assert connection.scalar(text("SELECT current_user = session_user"))

        def test_the_fixtures_are_the_owner(seeded_connection, seeded_session):
            assert seeded_connection.execute("SELECT count(*) FROM item").fetchone() == (2,)
            assert seeded_session.scalar(text("SELECT count(*) FROM forgotten")) == 0
        """
    )
    result.assert_outcomes(passed=7)
    result.stdout.fnmatch_lines(["seeddb: the application connected with the role shop_app"])


def test_a_role_without_any_grant_is_known_because_the_build_made_it_also_after_an_edit(shop):
    shop.write("app.py", APP.replace("shop_app", "lonely_app"))
    for edit in ("", "SELECT 1;"):
        shop.write(
            "db/002_roles.sql",
            f"""
            DO $$ BEGIN CREATE ROLE lonely_app; EXCEPTION WHEN duplicate_object THEN END $$; {edit}
        """,
        )
        shop.write("seeds/items.sql", "SELECT 1;")
        result = shop.test(
            """
            import pytest, app
            from sqlalchemy import text
            @pytest.mark.seeded
            def test_it():
                with app.psycopg.connect() as connection:
                    with pytest.raises(Exception, match="permission denied for table shop"):
                        connection.execute(text("SELECT * FROM shop"))
            """
        )
        result.assert_outcomes(passed=1)


def test_a_member_of_a_role_with_grants_and_its_settings(shop):
    shop.write(
        "db/002_roles.sql",
        """
        DO $$ BEGIN CREATE ROLE shop_readers; EXCEPTION WHEN duplicate_object THEN END $$;
        DO $$ BEGIN CREATE ROLE shop_app LOGIN PASSWORD 'x'; EXCEPTION WHEN duplicate_object THEN END $$;
        CREATE SCHEMA inner_shop;
        CREATE TABLE inner_shop.thing AS SELECT 7 AS id;
        GRANT USAGE ON SCHEMA inner_shop TO shop_readers;
        GRANT SELECT ON inner_shop.thing TO shop_readers;
        GRANT shop_readers TO shop_app;
        ALTER ROLE shop_app SET search_path = inner_shop, public;
    """,
    )
    shop.write("seeds/items.sql", "SELECT 1;")
    shop.test(
        """
        import pytest, app
        from sqlalchemy import text
        @pytest.mark.seeded
        @pytest.mark.parametrize("driver", app.SYNC)
        def test_it(driver):
            with app.SYNC[driver].connect() as connection:
                assert connection.scalar(text("SELECT id FROM thing")) == 7
        """
    ).assert_outcomes(passed=3)


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg", "postgresql+asyncpg"])
def test_the_variable_has_the_role_of_its_own_url(scheme, shop, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", f"{scheme}://shop_app:x@db.example/shop")
    shop.table('env = "DATABASE_URL"')
    shop.test(
        """
        import asyncio, os, pytest
        from sqlalchemy import create_engine, text
        from sqlalchemy.ext.asyncio import create_async_engine
        def test_it(seeded_db):
            url = os.environ["DATABASE_URL"]
            assert seeded_db.env["DATABASE_URL"] == url
            async def user():
                engine = create_async_engine(url)
                async with engine.connect() as connection:
                    name = await connection.scalar(text("SELECT current_user"))
                await engine.dispose()
                return name
            if "asyncpg" in url:
                assert asyncio.run(user()) == "shop_app"
            else:
                engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
                with engine.connect() as connection:
                    assert connection.scalar(text("SELECT current_user")) == "shop_app"
                engine.dispose()
        """
    ).assert_outcomes(passed=1)


@pytest.mark.parametrize(("role", "user"), [("owner", "session_user"), ("shop_app", "'shop_app'")])
def test_the_setting_decides(role, user, shop):
    shop.table(f'engines = ["app:psycopg", "app:owner"]\nrole = "{role}"')
    result = shop.test(
        f"""
        import pytest, app
        from sqlalchemy import text
        @pytest.mark.seeded
        @pytest.mark.parametrize("engine", [app.psycopg, app.owner])
        def test_it(engine):
            with engine.connect() as connection:
                assert connection.scalar(text("SELECT current_user = {user}"))
        """
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines([f"seeddb: *, role {role}"])


def test_a_role_that_does_not_exist_is_an_error(shop):
    shop.table('engines = ["app:psycopg"]\nrole = "no_such_role"')
    result = shop.test(
        """
        import pytest, app
        @pytest.mark.seeded
        def test_it():
            app.psycopg.connect()
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*There is no role 'no_such_role'*", "*`role`*pyproject.toml*"])


def test_a_denied_permission_is_explained(shop):
    result = shop.test(
        """
        import pytest, app
        from sqlalchemy import text
        @pytest.mark.seeded
        def test_it():
            with app.psycopg.connect() as connection:
                connection.execute(text("SELECT * FROM forgotten"))
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["The application's connections have the role shop_app, as in production *"])


def test_set_role_none_leads_back_to_the_owner_and_reset_role_does_not(shop):
    shop.test(
        """
        import pytest, app
        from sqlalchemy import text
        @pytest.mark.seeded
        @pytest.mark.parametrize("statement,same", [("RESET ROLE", False), ("SET ROLE NONE", True)])
        def test_it(statement, same):
            with app.psycopg.connect() as connection:
                connection.execute(text(statement))
                assert connection.scalar(text("SELECT current_user = session_user")) is same
        """
    ).assert_outcomes(passed=2)


def test_djangos_connections_have_the_role_of_its_settings(pytester):
    clinic = Clinic(pytester.path, pytester)
    grant = (
        "DO $$ BEGIN CREATE ROLE clinic_app; EXCEPTION WHEN duplicate_object THEN END $$; "
        "GRANT SELECT ON clinic_patient TO clinic_app"
    )
    clinic.migration("0003_role", f'migrations.RunSQL("{grant}")', "0002_wards")
    clinic.settings('DATABASES["default"]["USER"] = "clinic_app"')
    result = clinic.test(
        """
        import pytest
        from django.db import ProgrammingError, connection
        from clinic.models import Patient, Ward

        def use():
            assert connection.settings_dict["USER"] != "clinic_app"
            Patient.objects.count()
            with connection.cursor() as cursor:
                cursor.execute("SELECT current_user")
                assert cursor.fetchone() == ("clinic_app",)
            with pytest.raises(ProgrammingError, match="permission denied"):
                Ward.objects.count()

        @pytest.mark.seeded
        @pytest.mark.parametrize("round", range(3))
        def test_atomic(db, round):
            use()

        @pytest.mark.seeded
        def test_transactional(transactional_db):
            use()

        @pytest.mark.seeded
        def test_without_django_db():
            use()
        """
    )
    result.assert_outcomes(passed=5)
