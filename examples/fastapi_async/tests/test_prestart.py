"""The application's own way of migrating and seeding, on a database that is both already."""

import subprocess
import sys


def test_a_second_deployment_changes_nothing(seeded_db):
    subprocess.run([sys.executable, "-m", "app.prestart"], check=True)

    with seeded_db.connect() as connection:
        assert connection.execute("SELECT count(*) FROM providers").fetchone() == (4,)
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("0004",)
