"""What the clinic's database holds before the first patient comes in.

The essential seeds also run at each deployment (``python -m app.prestart``), on a database that may
have them already: hence ``ON CONFLICT DO NOTHING``.
"""

import random
from datetime import UTC, date, datetime, timedelta

from faker import Faker
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Appointment, Patient, Provider, Specialty
from pytest_seeddb import seeder

OPENING = datetime(2025, 1, 6, 8, 0, tzinfo=UTC)

SPECIALTIES = {"gp": "General practice", "cardio": "Cardiology", "physio": "Physiotherapy"}

PROVIDERS = [
    {"licence": "GP-100", "name": "Dr Amina Diallo", "specialty_code": "gp"},
    {"licence": "GP-101", "name": "Dr Tom Becker", "specialty_code": "gp"},
    {"licence": "CA-200", "name": "Dr Ines Duarte", "specialty_code": "cardio"},
    {"licence": "PT-300", "name": "Lena Svensson", "specialty_code": "physio"},
]


@seeder
async def specialties(session: AsyncSession) -> None:
    rows = [{"code": code, "name": name} for code, name in SPECIALTIES.items()]
    await session.execute(insert(Specialty).on_conflict_do_nothing(), rows)


@seeder(after=[specialties])
async def providers(session: AsyncSession) -> None:
    statement = insert(Provider).on_conflict_do_nothing(index_elements=[Provider.licence])
    await session.execute(statement, PROVIDERS)


@seeder(tier="demo")
async def patients(session: AsyncSession, patients: int = 10) -> None:
    fake = Faker("en_GB")
    session.add_all(
        Patient(
            number=f"P{number:04}",
            name=fake.name(),
            born_on=date(1950, 1, 1) + timedelta(days=random.randrange(20_000)),
        )
        for number in range(1, patients + 1)
    )


@seeder(tier="demo", after=[providers, patients])
async def appointments(session: AsyncSession, days: int = 2) -> None:
    """Give each provider one appointment on each day, at eight o'clock."""
    doctors = (await session.scalars(select(Provider).order_by(Provider.id))).all()
    waiting = (await session.scalars(select(Patient).order_by(Patient.id))).all()
    for day in range(days):
        for doctor, patient in zip(doctors, random.sample(waiting, k=len(doctors)), strict=True):
            session.add(Appointment(provider=doctor, patient=patient, starts_at=OPENING + timedelta(days=day)))
