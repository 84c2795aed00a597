"""The application through its front door. It opens its own connections and commits for real."""

import asyncio

import pytest

pytestmark = [pytest.mark.anyio, pytest.mark.seeded]

FREE_SLOT = {"licence": "GP-100", "patient_number": "P0001", "starts_at": "2025-01-06T09:00:00Z"}


async def test_the_database_is_migrated(client):
    assert (await client.get("/health")).json() == {"revision": "0004"}


async def test_providers_are_listed_by_specialty(client):
    response = await client.get("/providers", params={"specialty": "gp"})

    assert [provider["licence"] for provider in response.json()] == ["GP-100", "GP-101"]


async def test_a_new_patient_is_registered(client):
    new = {"number": "P9000", "name": "Grace Njoku", "born_on": "1990-05-17"}

    response = await client.post("/patients", json=new)

    assert response.status_code == 201
    assert (await client.get("/patients/P9000")).json() == {"id": 11, **new}


async def test_the_new_patient_of_another_test_is_unknown(client):
    assert (await client.get("/patients/P9000")).status_code == 404


async def test_a_number_is_given_only_once(client):
    response = await client.post("/patients", json={"number": "P0001", "name": "Grace Njoku", "born_on": "1990-05-17"})

    assert response.status_code == 409
    assert response.json()["detail"] == "patient P0001 is registered already"


async def test_a_cancelled_slot_is_free_again(client):
    booked = (await client.post("/appointments", json=FREE_SLOT)).json()
    taken = await client.post("/appointments", json=FREE_SLOT)

    await client.delete(f"/appointments/{booked['id']}")
    again = await client.post("/appointments", json=FREE_SLOT)

    assert (taken.status_code, again.status_code) == (409, 201)


async def test_of_five_requests_at_once_one_gets_the_slot(client):
    responses = await asyncio.gather(*(client.post("/appointments", json=FREE_SLOT) for _ in range(5)))

    assert sorted(response.status_code for response in responses) == [201, 409, 409, 409, 409]
