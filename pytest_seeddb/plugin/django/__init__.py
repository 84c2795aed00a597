"""pytest-django and Django's test classes on clones."""
