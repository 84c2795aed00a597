"""Where PostgreSQL comes from, how it is reached, and what it answers."""
