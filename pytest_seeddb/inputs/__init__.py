"""What a build depends on: Python sources and what they import, packages, data files."""
