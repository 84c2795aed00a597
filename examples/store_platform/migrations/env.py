from alembic import context
from sqlalchemy import create_engine, pool
from store_platform.db import database_url
from store_platform.models import Base

# A separate engine: the platform's has a pool, which a migration does not need.
with create_engine(database_url(), poolclass=pool.NullPool).connect() as connection:
    # The naming convention of the models' metadata also applies to objects that migrations create.
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()
