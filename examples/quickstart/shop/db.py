"""The shop's database: one engine for the whole process."""

import os

from sqlalchemy import create_engine, make_url
from sqlalchemy.orm import sessionmaker

# Hosting platforms hand out "postgres://..."; the driver is the shop's own business.
DATABASE_URL = make_url(os.environ.get("DATABASE_URL", "postgresql://localhost/shop")).set(
    drivername="postgresql+psycopg"
)

engine = create_engine(DATABASE_URL)
SessionLocal = sessionmaker(engine)
