"""Passwords are kept as scrypt hashes."""

import hashlib
import hmac

from store_platform.settings import settings


def hashed(password: str, email: str) -> str:
    """What is kept of a user's password.

    The salt is made of the e-mail and the platform's secret key: nobody else's is the same, nobody
    can tell it before, and yet the seeds make the same row each time.
    """
    salt = hmac.digest(settings.secret_key.get_secret_value().encode(), email.encode(), "sha256")[:16]
    return f"{salt.hex()}:{_scrypt(password, salt)}"


def fits(password: str, kept: str) -> bool:
    """Whether this is the password of which that was kept."""
    salt, _, digest = kept.partition(":")
    return hmac.compare_digest(_scrypt(password, bytes.fromhex(salt)), digest)


def _scrypt(password: str, salt: bytes) -> str:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1).hex()
