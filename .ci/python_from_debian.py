"""Make a Python that this Debian has no package of: ``python_from_debian.py 3.14 DIRECTORY``.

Takes the packages of a later release, with all that they need down to the C library, unpacks them in
DIRECTORY without installing anything, and lets the interpreter find its libraries there. Prints the
directory to put on PATH. Only for tests: nobody updates it.
"""

from __future__ import annotations

import hashlib
import lzma
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

MIRROR = "http://deb.debian.org/debian"  # what is fetched is checked against the index's digests
RELEASES = ("forky", "sid")
NOT_NEEDED = {"media-types", "netbase", "tzdata", "ca-certificates", "openssl", "readline-common", "ncurses-base"}


def index(release: str, architecture: str) -> dict[str, dict[str, str]]:
    """The release's packages by name, each with its fields."""
    data = fetched(f"dists/{release}/main/binary-{architecture}/Packages.xz")
    paragraphs = lzma.decompress(data).decode().split("\n\n")
    found = (dict(re.findall(r"^([\w-]+): (.*)$", each, re.MULTILINE)) for each in paragraphs)
    return {fields["Package"]: fields for fields in found if fields}


def fetched(path: str) -> bytes:
    with urllib.request.urlopen(f"{MIRROR}/{path}", timeout=60) as response:
        return response.read()


def needed(packages: dict[str, dict[str, str]], first: str) -> list[dict[str, str]]:
    """The package and all that it depends on."""
    wanted, found = [first], {}
    while wanted:
        name = wanted.pop()
        if name in found or name in NOT_NEEDED or name not in packages:
            continue
        found[name] = packages[name]
        named = ",".join(packages[name].get(field, "") for field in ("Depends", "Pre-Depends")).split(",")
        wanted += [re.split(r"[ :(|]", each.strip())[0] for each in named if each.strip()]
    return list(found.values())


def unpack(package: dict[str, str], place: Path) -> None:
    data = fetched(package["Filename"])
    if hashlib.sha256(data).hexdigest() != package["SHA256"]:
        sys.exit(f"{package['Filename']} is not what the index says")
    archive = place / "package.deb"
    archive.write_bytes(data)
    subprocess.run(["dpkg-deb", "-x", archive, place], check=True)
    archive.unlink()


def make_it_find_its_libraries(python: Path, place: Path) -> None:
    """Name the loader and the directory of the libraries in the program itself: its children keep the system's."""
    (loader,) = place.glob("usr/lib/*/ld-linux*.so.*")
    options = ["--set-interpreter", loader, "--force-rpath", "--set-rpath", loader.parent]
    subprocess.run(["patchelf", *options, python], check=True)


def main() -> None:
    version, place = sys.argv[1], Path(sys.argv[2]).resolve()
    place.mkdir(parents=True)
    told = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True)
    indexes = (index(release, told.stdout.strip()) for release in RELEASES)
    packages = next((each for each in indexes if f"python{version}" in each), None)
    if packages is None:
        sys.exit(f"no release of {', '.join(RELEASES)} has Python {version}")
    for package in needed(packages, f"python{version}"):
        unpack(package, place)
    python = place / "usr" / "bin" / f"python{version}"
    make_it_find_its_libraries(python, place)
    subprocess.run([python, "-c", "import ctypes, lzma, sqlite3, ssl, zlib"], check=True)
    print(python.parent)


if __name__ == "__main__":
    main()
