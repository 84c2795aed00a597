"""Dumps: files that hold a database, read by ``psql`` and ``pg_restore``, written by ``pg_dump``."""
