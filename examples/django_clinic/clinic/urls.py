from django.contrib import admin
from django.urls import path

from clinic import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("health", views.health),
    path("<slug:tenant>/patients", views.patients),
    path("<slug:tenant>/visits", views.visits),
    path("<slug:tenant>/board/<str:day>", views.board),
]
