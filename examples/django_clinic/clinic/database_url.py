"""``DATABASE_URL`` as Django wants it."""

from psycopg.conninfo import conninfo_to_dict

_PLACE = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}


def database(url):
    """An entry of ``DATABASES``; libpq reads the URL, so sockets (``?host=/run/...``) and ``sslmode`` work as well."""
    given = conninfo_to_dict(url)
    place = {key: str(given.pop(name, "")) for key, name in _PLACE.items()}
    return {"ENGINE": "django.db.backends.postgresql", **place, "OPTIONS": given}
