"""The test's own asynchronous session, beside the application's."""

import pytest
from app.models import Appointment, Patient
from app.seeds import providers, specialties
from sqlalchemy import func, select, text

pytestmark = pytest.mark.anyio


async def test_a_test_sees_what_a_request_committed(client, seeded_async_session):
    await client.post("/patients", json={"number": "P9000", "name": "Grace Njoku", "born_on": "1990-05-17"})

    patient = (await seeded_async_session.scalars(select(Patient).filter_by(number="P9000"))).one()
    assert patient.name == "Grace Njoku"


async def test_a_request_sees_what_a_test_committed(client, seeded_async_session):
    await seeded_async_session.execute(text("UPDATE patients SET name = 'Renamed' WHERE number = 'P0001'"))
    await seeded_async_session.commit()

    assert (await client.get("/patients/P0001")).json()["name"] == "Renamed"


async def test_seeding_a_seeded_database_changes_nothing(seeded_async_session):
    await specialties(seeded_async_session)
    await providers(seeded_async_session)

    rows = await seeded_async_session.execute(
        text("SELECT (SELECT count(*) FROM specialties), (SELECT count(*) FROM providers)")
    )
    assert rows.one() == (3, 4)


@pytest.mark.seeded(patients=50, days=5)
async def test_a_test_may_ask_for_more(seeded_async_session):
    assert await seeded_async_session.scalar(select(func.count()).select_from(Patient)) == 50
    assert await seeded_async_session.scalar(select(func.count()).select_from(Appointment)) == 20


async def test_a_table_may_be_dropped(client, seeded_async_engine):
    async with seeded_async_engine.begin() as connection:
        await connection.execute(text("DROP TABLE appointments"))

    assert (await client.get("/patients/P0001")).status_code == 200


async def test_the_dropped_table_is_there_again(seeded_async_session):
    assert await seeded_async_session.scalar(select(func.count()).select_from(Appointment)) == 8
