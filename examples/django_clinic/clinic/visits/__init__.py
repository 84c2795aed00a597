"""Who comes when, to whom, and what for."""
