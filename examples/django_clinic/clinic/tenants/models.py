from django.db import models


class Tenant(models.Model):
    slug = models.SlugField(max_length=40, unique=True)
    name = models.CharField(max_length=100)
    takes_visits = models.BooleanField(default=True)

    def __str__(self):
        return self.name
