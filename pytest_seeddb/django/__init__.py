"""An application for INSTALLED_APPS, which brings `python manage.py seeddb`. Nothing else needs it."""
