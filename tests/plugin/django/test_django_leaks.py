"""A test that Django rolls back has its clone to itself, and what it commits by force stays there."""

from __future__ import annotations

import pytest
from clinic import Clinic


@pytest.fixture
def clinic(pytester):
    return Clinic(pytester.path, pytester)


WAYS = """
    import psycopg
    from psycopg import sql

    INSERT = "INSERT INTO clinic_patient (name) VALUES ('leaked')"

    def place():
        names = ("dbname", "user", "password", "host", "port")
        known = connection.get_connection_params()
        return {"options": "-c lock_timeout=5000", **{name: known[name] for name in names if name in known}}

    def let_go():
        # Of the locks that the look at the beginning took.
        connection.connection.rollback()

    def second_connection():
        with psycopg.connect(**place()) as other:
            other.execute(INSERT)

    def second_wrapper():
        other = connection.copy()
        other.cursor().execute(INSERT)
        other.close()

    def second_wrapper_left_open():
        left.append(connection.copy())
        left[-1].cursor().execute(INSERT)

    def raw_commit():
        Patient.objects.create(name="leaked")
        connection.connection.commit()

    def raw_statement():
        Patient.objects.create(name="leaked")
        connection.cursor().execute("COMMIT")

    def raw_statement_and_begin():
        with connection.cursor() as cursor:
            cursor.execute(INSERT)
            cursor.execute("COMMIT")
            cursor.execute("BEGIN")
            for savepoint in connection.savepoint_ids:
                cursor.execute(f"SAVEPOINT {savepoint}")

    def raw_autocommit():
        connection.connection.rollback()
        connection.connection.autocommit = True
        connection.connection.execute(INSERT)

    def pretending_to_be_outside():
        Patient.objects.create(name="leaked")
        connection.in_atomic_block = False
        connection.commit()
        connection.in_atomic_block = True

    def closed_and_opened_again():
        connection.connection.close()
        connection.connection = None
        connection.in_atomic_block, connection.savepoint_ids, connection.atomic_blocks = False, [], []
        connection.connect()
        connection.cursor().execute(INSERT)

    def subprocess_of_its_own():
        text = f"import psycopg; c = psycopg.connect(**{place()!r}); c.execute({INSERT!r}); c.commit()"
        subprocess.run([sys.executable, "-c", text], check=True)

    def subprocess_that_commits_later():
        text = f"import psycopg; c = psycopg.connect(**{place()!r}); c.execute({INSERT!r})"
        text += "; print(1, flush=True); input(); c.commit()"
        late.append(subprocess.Popen([sys.executable, "-c", text], stdin=-1, stdout=-1, stderr=-3))
        assert late[-1].stdout.readline()

    def thread():
        worker = threading.Thread(target=lambda: Patient.objects.create(name="leaked"))
        worker.start()
        worker.join()

    def committed_ddl():
        let_go()
        with psycopg.connect(**place()) as other:
            other.execute("ALTER TABLE clinic_patient ADD extra int NOT NULL DEFAULT 1")
            other.execute("CREATE VIEW leaked AS SELECT 1")

    def committed_sequence():
        let_go()
        with psycopg.connect(**place()) as other:
            other.execute("ALTER SEQUENCE clinic_patient_id_seq RESTART WITH 70 INCREMENT 7")

    def committed_truncate():
        let_go()
        with psycopg.connect(**place()) as other:
            other.execute("TRUNCATE clinic_ward CASCADE")

    def committed_setting_of_the_database():
        with psycopg.connect(**place(), autocommit=True) as other:
            name = sql.Identifier(place()["dbname"])
            other.execute(sql.SQL("ALTER DATABASE {} SET search_path = nowhere").format(name))

    def rolled_back_ddl():
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE clinic_patient ADD extra int NOT NULL DEFAULT 1")
            cursor.execute("CREATE TABLE leaked ()")
            cursor.execute("TRUNCATE clinic_ward, clinic_visit RESTART IDENTITY CASCADE")
            cursor.execute("SELECT setval('clinic_patient_id_seq', 500)")
            cursor.execute("DROP TABLE clinic_visit CASCADE")

    def numbers_used_up():
        for _ in range(40):
            connection.cursor().execute("SELECT nextval('clinic_patient_id_seq')")

    left, late = [], []
"""
CHECKS = """

    @pytest.fixture(autouse=True)
    def seeds(db):
        with connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass('leaked'), current_setting('search_path')")
            assert cursor.fetchone() == (None, '"$user", public')
            cursor.execute("SELECT * FROM clinic_patient")
            assert [column.name for column in cursor.description] == ["id", "name"]
        assert [each.id for each in Patient.objects.order_by("id")] == [1, 2, 3]
        assert (Visit.objects.count(), Ward.objects.count()) == (3, 2)
        with transaction.atomic():
            assert Patient.objects.create(name="x").id == 4
            assert Visit.objects.create(patient_id=4).id == 4
            transaction.set_rollback(True)
"""
NAMES = [line.split("(")[0].removeprefix("    def ") for line in WAYS.splitlines() if line.startswith("    def ")]
NAMES = [name for name in NAMES if name not in {"place", "let_go", "subprocess_that_commits_later"}]


def outcomes(result):
    """Without the errors of a tear-down: a test that breaks Django's transaction is told so by Django."""
    assert "ERROR at setup" not in result.stdout.str()
    return result.parseoutcomes()["passed"]


@pytest.mark.slow
def test_what_an_atomic_test_commits_in_any_way_does_not_reach_the_next(clinic):
    tests = f"""
    @pytest.mark.seeded
    @pytest.mark.parametrize("number", range(2))
    @pytest.mark.parametrize("way", [{", ".join(NAMES)}])
    def test_it(db, way, number):
        way()

    @pytest.mark.seeded
    def test_at_the_end(db):
        pass
    """
    assert outcomes(clinic.test(WAYS + CHECKS + tests)) == 2 * len(NAMES) + 1


@pytest.mark.slow
def test_what_is_left_connected_or_commits_later_does_not_reach_the_next(clinic):
    tests = """
    @pytest.mark.seeded
    @pytest.mark.parametrize("number", range(2))
    @pytest.mark.parametrize("way", [subprocess_that_commits_later, second_wrapper_left_open])
    def test_a_leak(db, way, number):
        for each in late:
            each.communicate(b"\\n")
        assert Patient.objects.count() == 3
        way()

    @pytest.mark.seeded
    def test_b_at_the_end(db):
        for each in late:
            each.communicate(b"\\n")
        assert Patient.objects.count() == 3
        for each in left:
            each.inc_thread_sharing()
            each.close()
    """
    result = clinic.test(WAYS + CHECKS + tests.replace("each.communicate", "each.poll() is None and each.communicate"))
    assert outcomes(result) == 5


@pytest.mark.slow
@pytest.mark.parametrize("arguments", ["", "transaction=True"])
def test_a_thread_that_a_test_left_running_is_refused_the_next_tests_database(clinic, arguments):
    result = clinic.test(
        f"""
        import queue, threading
        go, errors = threading.Event(), queue.Queue()
        def late():
            go.wait(10)
            try:
                Patient.objects.create(name="late")
                errors.put(None)
            except Exception as error:
                errors.put(str(error))
        @pytest.mark.seeded
        @pytest.mark.django_db({arguments})
        def test_a():
            threading.Thread(target=late).start()
        @pytest.mark.seeded
        @pytest.mark.django_db({arguments})
        def test_b():
            go.set()
            assert "of a later test" in errors.get(timeout=10)
            assert Patient.objects.count() == 3
        """
    )
    result.assert_outcomes(passed=2)


@pytest.mark.slow
def test_what_an_atomic_test_commits_for_its_session_does_not_reach_the_next(clinic):
    result = clinic.test(
        """
        STATEMENTS = [
            "SET search_path TO pg_catalog", "SET statement_timeout = 77", "SET default_transaction_read_only = on",
            "SET timezone = 'Asia/Tokyo'", "CREATE TEMPORARY TABLE clinic_patient (id int, name text)",
            "SET ROLE pg_read_all_data", "LISTEN mine", "PREPARE mine AS SELECT 1", "SELECT pg_advisory_lock(1)",
        ]
        STATE = [
            "SELECT current_setting('search_path'), current_setting('statement_timeout'), current_user, "
            "current_setting('default_transaction_read_only'), current_setting('timezone'), "
            "to_regclass('pg_temp.clinic_patient')",
            "SELECT count(*) FROM pg_listening_channels()",
            "SELECT count(*) FROM pg_prepared_statements WHERE name = 'mine'",
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
        ]

        def state():
            found = []
            with connection.cursor() as cursor:
                for each in STATE:
                    cursor.execute(each)
                    found.append(cursor.fetchone())
            return found

        @pytest.fixture(scope="session")
        def first():
            return []

        @pytest.mark.seeded
        @pytest.mark.parametrize("statement", [*STATEMENTS, "SELECT 1"])
        def test_it(db, statement, first):
            first.append(state())
            assert first[-1] == first[0]
            connection.cursor().execute(statement)
            connection.connection.commit()
        """
    )
    assert outcomes(result) == 10
