"""Digests, and what determines a result: files, code, packages, data that was read."""
