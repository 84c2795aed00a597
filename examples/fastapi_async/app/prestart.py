"""``python -m app.prestart`` runs in each deployment before the application starts.

It may run any number of times.
"""

import asyncio

from alembic import command
from alembic.config import Config

from app.db import SessionLocal, engine
from app.seeds import providers, specialties


async def seed() -> None:
    """Add the missing essential seeds."""
    async with SessionLocal.begin() as session:
        await specialties(session)
        await providers(session)
    await engine.dispose()


def main() -> None:
    """Migrate, then seed."""
    command.upgrade(Config("alembic.ini"), "head")
    asyncio.run(seed())


if __name__ == "__main__":
    main()
