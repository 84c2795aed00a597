"""`redirect_django`: every connection of Django's goes to our databases, and everything is put back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from itertools import count

import psycopg
import pytest
from clinic import SCRIPT
from psycopg import sql

_numbers = count(1)


# Tables `place` in three databases say which one is which. Settings are per process: each case has one.
@pytest.fixture(scope="module")
def places(server_address):
    names = [f"{name}_{os.getpid()}" for name in ("outside", "first", "second")]
    with psycopg.connect(server_address.conninfo, autocommit=True) as admin:
        for name in names:
            admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
            with psycopg.connect(server_address.with_database(name).conninfo) as own:
                own.execute("CREATE TABLE place (name text); CREATE TABLE entry (name text)")
                own.execute("INSERT INTO place VALUES (%s)", [name.rpartition("_")[0]])
    yield [dict(server_address.with_database(name).params) for name in names]
    with psycopg.connect(server_address.conninfo, autocommit=True) as admin:
        for name in names:
            admin.execute(sql.SQL("DROP DATABASE {} (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def run(places, tmp_path):
    def run(text):
        """Run the script, and see that nothing of it is left connected anywhere."""
        script = tmp_path / f"script_{next(_numbers)}.py"
        script.write_text(textwrap.dedent(SCRIPT) + textwrap.dedent(text))
        environment = {**os.environ, "PLACES": json.dumps(places)}
        line = [sys.executable, "-W", "error", str(script)]
        done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment, timeout=60)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""

    return run


def test_inside_the_block_it_is_ours_and_afterwards_everything_is_as_it_was(run):
    run(
        """
        set_up()
        from django.db import connection, connections

        before = copy.deepcopy(connections.settings)
        own = backend()
        with redirect_django({"default": first}):
            assert where() == "first"
            assert connection.settings_dict["NAME"] == first.database
            inside = backend()
        assert connections.settings == before
        assert list(connections.settings["default"]) == list(before["default"])
        assert where() == "outside" and backend() == own and inside != own
        assert all_end(inside)
        connections.close_all()
        with redirect_django({"default": first}):
            assert where() == "first"
        assert connection.connection is None and where() == "outside"
        try:
            with redirect_django({"default": first}):
                where()
                raise KeyError("mine")
        except KeyError:
            pass
        assert connections.settings == before and where() == "outside"
        """
    )


def test_redirections_nest_and_each_end_gives_the_one_before_it_back(run):
    run(
        """
        set_up()
        from django.db import connection, transaction

        with redirect_django({"default": first}):
            assert where() == "first"
            own = backend()
            with transaction.atomic():
                insert()
                with redirect_django({"default": second}):
                    assert where() == "second" and not connection.in_atomic_block
                    insert()
                    with redirect_django({"default": first}):
                        assert where() == "first" and entries() == 0
                    assert where() == "second" and entries() == 1
                assert where() == "first" and backend() == own and entries() == 1
                transaction.set_rollback(True)
            assert entries() == 0
        assert where() == "outside"
        with redirect_django({"default": second}):
            connection.cursor().execute("TRUNCATE entry")
        """
    )


def test_an_open_transaction_outside_survives_a_redirection_with_its_savepoints_and_callbacks(run):
    run(
        """
        set_up()
        from django.db import connection, transaction

        called = []
        with transaction.atomic():
            insert()
            own = backend()
            with transaction.atomic():
                insert()
                transaction.on_commit(lambda: called.append("outside"))
                with redirect_django({"default": first}) as redirection:
                    assert not connection.in_atomic_block and entries() == 0
                    with transaction.atomic():
                        insert()
                        transaction.on_commit(lambda: called.append("inside"))
                    assert called == ["inside"] and in_a_thread(entries) == 1
                    connection.cursor().execute("TRUNCATE entry")
                    redirection.close_connections()
                    assert entries() == 0
                assert connection.in_atomic_block and backend() == own and entries() == 2
            assert called == ["inside"]
        assert called == ["inside", "outside"] and entries() == 2
        connection.cursor().execute("TRUNCATE entry")
        """
    )


def test_a_transaction_that_is_left_open_inside_is_rolled_back_and_harms_nobody(run):
    run(
        """
        set_up()
        from django.db import connection, transaction

        with redirect_django({"default": first}):
            atomic = transaction.atomic()
            atomic.__enter__()
            insert()
        assert where() == "outside" and not connection.in_atomic_block
        with redirect_django({"default": first}):
            assert entries() == 0 and not connection.in_atomic_block
            transaction.set_autocommit(False)
            insert()
        assert connection.get_autocommit() and where() == "outside"
        with redirect_django({"default": first}):
            assert entries() == 0
        """
    )


@pytest.mark.slow
def test_other_threads_are_redirected_and_their_connections_end_with_the_block(run):
    run(
        """
        from concurrent.futures import ThreadPoolExecutor
        set_up()
        worker = ThreadPoolExecutor(1)
        def told(function):
            return worker.submit(function).result()

        with redirect_django({"default": first}) as redirection:
            assert [told(where), in_a_thread(where), where()] == ["first"] * 3
            inside = told(backend)
            redirection.close_connections()
            assert told(where) == "first" and told(backend) != inside
            with redirect_django({"default": second}):
                assert told(where) == "second"
            assert told(where) == "first"
        assert told(where) == "outside" and where() == "outside"

        left = []
        with redirect_django({"default": first}):
            told(lambda: left.append(backend()))
        assert all_end(*left)
        from django.db import connections
        told(connections.close_all)
        worker.shutdown()
        connections.close_all()
        """
    )


def test_a_thread_that_was_connected_before_the_first_redirection_is_redirected(run):
    run(
        """
        from concurrent.futures import ThreadPoolExecutor
        set_up()
        from django.db import connections
        worker = ThreadPoolExecutor(1)

        assert worker.submit(where).result() == "outside"
        with redirect_django({"default": first}):
            found = [worker.submit(where).result()]
        found.append(worker.submit(where).result())
        worker.submit(connections.close_all).result()
        worker.shutdown()
        assert found == ["first", "outside"], found
        """
    )


def test_a_thread_that_begins_inside_and_ends_outside_never_reaches_the_other_database(run):
    run(
        """
        set_up()
        begun, go_on, found = threading.Event(), threading.Event(), []

        def work():
            from django.db import connections
            found.append(where())
            begun.set()
            go_on.wait()
            try:
                found.append(where())
            except Exception as error:
                found.append(type(error).__name__)
            connections.close_all()

        thread = threading.Thread(target=work)
        with redirect_django({"default": first}):
            thread.start()
            begun.wait()
        go_on.set()
        thread.join()
        assert found[0] == "first" and found[1] != "first"
        """
    )


def test_a_mirror_and_another_name_of_the_same_database_go_along(run):
    run(
        """
        set_up(
            mirror={**lead_to(second), "TEST": {"MIRROR": "default"}},
            again=lead_to(outside),
            of_the_mirror={**lead_to(second), "NAME": "nowhere", "TEST": {"MIRROR": "mirror"}},
        )
        from django.db import connections

        before = copy.deepcopy(connections.settings)
        with redirect_django({"default": first}):
            assert [where(alias) for alias in connections] == ["first"] * 4
            with redirect_django({"default": second}):
                assert [where(alias) for alias in connections] == ["second"] * 4
            assert [where(alias) for alias in connections] == ["first"] * 4
        assert connections.settings == before
        assert [where(alias) for alias in ("default", "again", "mirror")] == ["outside", "outside", "second"]
        connections.close_all()
        """
    )


def test_an_alias_without_a_database_cannot_connect_and_those_of_other_vendors_are_left_alone(run):
    run(
        """
        set_up(other=lead_to(second), lite={"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"})
        from django.db import connections

        assert where("other") == "second"
        connections["lite"].cursor().execute("CREATE TABLE place AS SELECT 'lite' AS name")
        before = copy.deepcopy(connections.settings)
        with redirect_django({"default": first}):
            assert where() == "first" and where("lite") == "lite"
            told = refused(lambda: where("other"))
            assert "this alias has no database here" in told, told
            assert second.database not in told
        assert connections.settings == before
        with redirect_django({"default": first, "other": outside}):
            assert [where(), where("other"), where("lite")] == ["first", "outside", "lite"]
        assert [where(), where("other"), where("lite")] == ["outside", "second", "lite"]
        connections.close_all()
        """
    )


def test_settings_that_say_how_stay_and_those_that_say_where_are_replaced(run):
    run(
        """
        place = lead_to(outside)
        place["OPTIONS"] = {
            "options": "-c statement_timeout=77000", "dbname": place.pop("NAME"), "host": place.pop("HOST"),
            "application_name": "mine", "isolation_level": 3, "service": "nothing",
        }
        set_up(default={**place, "CONN_MAX_AGE": 9, "TIME_ZONE": "Asia/Tokyo"})
        from django.db import connection, connections, transaction

        before = copy.deepcopy(connections.settings)
        with redirect_django({"default": first}):
            assert where() == "first"
            with connection.cursor() as cursor:
                wanted = {"statement_timeout": "77s", "application_name": "mine", "timezone": "Asia/Tokyo"}
                found = {}
                for name in wanted:
                    cursor.execute(f"SHOW {name}")
                    found[name] = cursor.fetchone()[0]
            assert found == wanted, found
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SHOW transaction_isolation")
                assert cursor.fetchone() == ("repeatable read",)
        assert connections.settings == before
        """
    )


def test_django_that_is_set_up_inside_the_block_is_redirected_and_afterwards_as_its_settings_say(run):
    run(
        """
        with redirect_django({"default": first}):
            assert "django" not in sys.modules
            set_up(other=lead_to(second))
            assert where() == "first" and in_a_thread(where) == "first"
            assert "no database here" in refused(lambda: where("other"))
        assert where() == "outside" and where("other") == "second"
        from django.db import connections
        assert connections.settings["default"]["NAME"] == outside.database
        with redirect_django({"default": second}):
            assert where() == "second"
        assert where() == "outside"
        connections.close_all()
        """
    )


def test_a_nested_redirection_before_django_is_set_up_is_the_one_that_counts(run):
    run(
        """
        with redirect_django({"default": first}):
            with redirect_django({"default": second}):
                set_up()
                assert where() == "second"
            assert where() == "first"
        assert where() == "outside"
        """
    )


def test_a_process_without_django_is_left_without(run):
    run(
        """
        with redirect_django({"default": first}):
            pass
        assert not [name for name in sys.modules if name.partition(".")[0] == "django"]
        """
    )


def test_a_kept_redirection_keeps_its_connection_from_block_to_block(run):
    run(
        """
        set_up()
        from django.db import connection

        kept, found = KeptRedirection(first), []
        for _ in range(3):
            with kept.on():
                assert where() == "first"
                found.append(backend())
                assert kept.backend() == found[-1]
            assert where() == "outside"
            with redirect_django({"default": second}):
                assert where() == "second"
        assert len(set(found)) == 1
        with kept.on():
            from django.db import transaction
            with transaction.atomic():
                assert kept.backend() == found[0] or kept.backend() == 0
            connection.close()
            assert kept.backend() == 0
        with kept.on():
            assert where() == "first" and backend() != found[0]
            found.append(backend())
        kept.close()
        assert all_end(*found)
        """
    )
