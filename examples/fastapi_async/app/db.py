"""The clinic's database: one engine for the whole process, which everybody imports by value."""

import os
from collections.abc import AsyncIterator

from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

# Hosting platforms hand out "postgres://..."; the driver is the clinic's own business.
DATABASE_URL = make_url(os.environ.get("DATABASE_URL", "postgresql://localhost/clinic")).set(
    drivername="postgresql+asyncpg"
)

engine = create_async_engine(DATABASE_URL)
SessionLocal = async_sessionmaker(engine, expire_on_commit=False)


async def get_session() -> AsyncIterator[AsyncSession]:
    """A session for one request. Uncommitted changes are rolled back."""
    async with SessionLocal() as session:
        yield session
