"""The project's settings, from the environment. How much the seeds make is not among them: see `clinic.seeds`."""

import os
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from clinic.database_url import database

BASE_DIR = Path(__file__).parent.parent
EVERYBODYS_KEY = "not-a-secret"

ENVIRONMENT = os.environ.get("ENVIRONMENT", "development")  # the variable by which seeddb, too, knows production
DEBUG = os.environ.get("DEBUG", "") == "1"
SECRET_KEY = os.environ.get("SECRET_KEY", EVERYBODYS_KEY)
ALLOWED_HOSTS = os.environ.get("ALLOWED_HOSTS", "localhost,127.0.0.1").split(",")
DATABASES = {"default": database(os.environ.get("DATABASE_URL", "postgresql://localhost/clinic"))}

if ENVIRONMENT == "production" and SECRET_KEY == EVERYBODYS_KEY:
    raise ImproperlyConfigured("in production SECRET_KEY needs a value of its own")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "clinic.tenants",
    "clinic.clinicians",
    "clinic.patients",
    "clinic.visits",
    "clinic.seeds",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

AUTH_USER_MODEL = "clinicians.Clinician"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "clinic.urls"
WSGI_APPLICATION = "clinic.wsgi.application"
STATIC_URL = "static/"
EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
DEFAULT_FROM_EMAIL = "clinic@clinic.example"
USE_TZ = True
TIME_ZONE = "UTC"
