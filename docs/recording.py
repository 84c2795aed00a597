"""Draw docs/run.svg, the picture in the README: two runs of the quickstart, as a terminal shows them.

    python docs/recording.py

Needs the package and `examples/quickstart` to be installed. The cache directory is an empty one.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
PICTURE = Path(__file__).with_name("run.svg")
WIDTH = 104
COMMANDS = ("pytest --seed-db tests/test_orders.py", "pytest --seed-db tests/test_orders.py")
"""The first one builds the template, the second finds it."""


def draw(picture: Path) -> None:
    """Run the commands, and write the picture."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as cache:  # a server's data, which another account reads
        Path(cache).chmod(0o755)
        environment = {**os.environ, "XDG_CACHE_HOME": cache, "COLUMNS": str(WIDTH), "PY_COLORS": "1"}
        for command in COMMANDS:
            console.print(Text.from_ansi(f"\x1b[1;32m$\x1b[0m \x1b[1m{command}\x1b[0m"))
            for line in shown(command, environment):
                console.print(Text.from_ansi(line))
    drawn = console.export_svg(title="examples/quickstart", unique_id="seeddb")
    # The reader's own font: a picture loads nothing.
    picture.write_text(re.sub(r"\s*@font-face \{.*?\n\s*\}", "", drawn, flags=re.DOTALL), encoding="utf-8")


def shown(command: str, environment: dict[str, str]) -> list[str]:
    """What a command prints, without the lines about the machine."""
    line = [sys.executable, "-m", *command.split(), "-p", "no:randomly", "-p", "no:asyncio"]
    place = ROOT / "examples" / "quickstart"
    done = subprocess.run(line, cwd=place, env=environment, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - pytest
    machine = re.compile(r"(platform|rootdir|configfile|plugins|cachedir)")
    return [text for text in done.stdout.splitlines() if not machine.match(text)]


if __name__ == "__main__":
    draw(PICTURE)
