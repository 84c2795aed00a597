"""The clinics that share the tables."""
