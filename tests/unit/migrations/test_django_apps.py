"""Which files of an application do nothing but define names when they are imported."""

from __future__ import annotations

import textwrap

import pytest

from pytest_seeddb.migrations.django import _value_part
from pytest_seeddb.migrations.django_apps import _Reader

PLAIN = {
    "nothing": "",
    "its configuration": """
        from django.apps import AppConfig
        from django.utils.translation import gettext_lazy as _

        class News(AppConfig):
            "The news."
            name = "news"
            verbose_name = _("News")
    """,
    "views": """
        import json
        from typing import TYPE_CHECKING
        from django.urls import path
        from django.views.generic import View
        from shop.models import Order
        from . import forms
        from news.pages import page as page

        if TYPE_CHECKING:
            from elsewhere import Thing

        SIZE: int = 10

        class Orders(View):
            model = Order
            def get(self, request, size=SIZE): return page(json.dumps(size))

        async def one(request): return Order.objects.get()

        urlpatterns = [path("", Orders.as_view()), path("one", one)]
    """,
}
LOUD = {
    "a receiver": "from django.dispatch import receiver\n@receiver(x)\ndef note(**_): pass",
    "a call": "from django.db.models.signals import post_save\npost_save.connect(print)",
    "a call for a value": "from django.db.models.signals import post_save\nx = post_save.connect(print)",
    "a call in a class": "class A:\n    x = print()",
    "a call for a default": "def f(x=print()): pass",
    "a call under a condition": "if x:\n    f()",
    "a changed object": "from django.db import models\nmodels.Model.x = 1",
    "a module of the project": "import shop.receivers",
    "one by its package": "from shop import receivers",
    "one beside the package": "from .. import receivers",
    "all names": "from django.db.models import *",
    "a library": "import library",
    "a model": "from django.db import models\nclass A(models.Model): pass",
    "a model by its name": "from django.db.models import Model as M\nclass A(M): pass",
    "a proxy": "from shop.models import Order\nclass A(Order): pass",
    "a class with a metaclass": "class A(metaclass=B): pass",
    "a class that hears of others": "class A:\n    def __init_subclass__(cls): f()",
    "an attribute that is computed": "def __getattr__(name): f()",
    "a function with a harmless name": "def path(): f()\nx = path()",
    "another name for one": "x: int = (y := f)",
    "no Python": "x = ",
}


@pytest.mark.parametrize("name", [*PLAIN, *LOUD])
def test_a_file_is_plain_that_only_defines_names(name, tmp_path):
    file = tmp_path / "file.py"
    file.write_text(textwrap.dedent(PLAIN.get(name) or LOUD.get(name) or ""))
    assert _Reader("news", 1, {"shop", "shop.models"}).is_plain(file) == (name in PLAIN)


def test_a_secret_setting_counts_by_its_value_but_djangos_own_key_by_its_type():
    secret = _value_part("ADMIN_PIN", "493022")
    assert (secret.digest, secret.secret) == ("set", '"493022"')
    assert _value_part("SECRET_KEY", "a") == _value_part("SECRET_KEY", "b")
    assert _value_part("AUTH_USER_MODEL", "shop.User").digest != _value_part("AUTH_USER_MODEL", "auth.User").digest
