"""A clinic: providers, their patients, and who sees whom when."""
