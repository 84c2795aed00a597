"""The platform's settings, all in one place: read from the environment and checked when this is imported.

How much the seeds make is not among them: those are the seeders' parameters, and
``SEEDDB_SEED_STORES=5`` reaches them without the platform's knowing.
"""

from typing import Literal, Self

from pydantic import PositiveInt, SecretStr, model_validator
from pydantic_settings import BaseSettings

_EVERYBODYS_KEY = "not-a-secret"


class Settings(BaseSettings):
    """Each field is the environment variable of that name, in capitals."""

    # No PostgresDsn: that takes no URL of a server on a Unix socket.
    database_url: SecretStr = SecretStr("postgresql://localhost/store_platform")
    # The variable by which seeddb, too, knows production.
    environment: Literal["development", "staging", "production"] = "development"
    secret_key: SecretStr = SecretStr(_EVERYBODYS_KEY)
    largest_order: PositiveInt = 50

    @model_validator(mode="after")
    def _production_has_a_key_of_its_own(self) -> Self:
        if self.environment == "production" and self.secret_key.get_secret_value() == _EVERYBODYS_KEY:
            raise ValueError("in production SECRET_KEY needs a value of its own")
        return self


settings = Settings()
