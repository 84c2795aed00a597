"""The web application: ``uvicorn app.main:app``."""

from fastapi import FastAPI
from sqlalchemy import text

from app.db import engine
from app.routers import appointments, patients, providers

app = FastAPI(title="Clinic")
app.include_router(providers.router)
app.include_router(patients.router)
app.include_router(appointments.router)


@app.get("/health")
async def health() -> dict[str, str]:
    """Whether the database answers, and which migration it has."""
    async with engine.connect() as connection:
        return {"revision": await connection.scalar(text("SELECT version_num FROM alembic_version"))}
