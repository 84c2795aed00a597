"""A platform on which many stores sell, each under its own domain, from one database."""
