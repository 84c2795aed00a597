"""Seeds: what fills a migrated database."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_seeddb.config import Settings
    from pytest_seeddb.plan import Stage
    from pytest_seeddb.seeds.secrets import WeakSecret

__all__ = ["secret_names", "stages", "weak_secrets_of"]


def stages(settings: Settings, overrides: Mapping[str, object]) -> tuple[Stage, ...]:
    """The stages ``essential seeds`` and ``demo seeds`` of the settings' profile.

    Neither the project's modules nor any framework is imported as long as the seeders are declared
    plainly; see `pytest_seeddb.seeds.discovery`.

    Args:
        settings: Name the seeds, the profile and the random seed.
        overrides: Parameters that a marker gives; they go before the profile's.

    Returns:
        The stages in order; one without steps is left out.

    Raises:
        ConfigError: A seed, a profile, a parameter or a declaration is wrong.
    """
    # Imported here: an application imports `seeder` through this package, in production.
    from pytest_seeddb.seeds.staging import seed_stages

    return seed_stages(settings, overrides)


def secret_names(settings: Settings, overrides: Mapping[str, object]) -> frozenset[str]:
    """The parameters of all seeders whose values are shown nowhere.

    Raises:
        ConfigError: As `stages`.
    """
    from pytest_seeddb.seeds.staging import secret_names as found

    return found(settings, overrides)


def weak_secrets_of(settings: Settings, overrides: Mapping[str, object]) -> tuple[WeakSecret, ...]:
    """The secret parameters of the profile's seeders that anybody could guess.

    Raises:
        ConfigError: As `stages`.
    """
    from pytest_seeddb.seeds.staging import weak_secrets_of as found

    return found(settings, overrides)
