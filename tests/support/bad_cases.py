"""Cases of bad input as they stand in a text file: what differs from a good project, and what the user is told.

The form is described in ``tests/promises/bad_input/README.md``.
"""

from __future__ import annotations

import fcntl
import re
from ast import literal_eval
from dataclasses import dataclass, field

_CASE = re.compile(r"^=== (.+)\n", re.MULTILINE)
_PART = re.compile(r"^--- (.+)\n", re.MULTILINE)
_EXIT = re.compile(r"^--- exit (\d+)\n", re.MULTILINE)
_ERROR = re.compile(r"\b(\w+Error): ")


@dataclass
class Case:
    """One case. ``code`` is None where nobody has said yet what the user is told."""

    area: str
    name: str
    table: str = ""
    files: dict[str, str | bytes | None] = field(default_factory=dict)
    marker: str | None = None
    environment: str = ""
    before: str = ""
    run: str = "pytest"
    code: int | None = None
    told: str = ""

    @property
    def kind(self):
        """Cases of one kind go the same way through the product."""
        raised = _ERROR.search(self.told)
        command = self.run.split()[:2] if self.run.startswith("seeddb") else ["pytest"]
        return self.area, *command, self.code, raised[1] if raised else ""


def cases(path):
    """The cases of a file, in its order."""
    found = [_case(path.stem, name, text) for name, text in _split(_CASE, path.read_text(encoding="utf-8"))]
    names = [each.name for each in found]
    assert len(names) == len(set(names)), f"{path.name} has two cases of one name"
    return found


def renew(path, name, code, told):
    """Write what the case prints now in place of what it printed; several processes may do so at once."""
    with path.open("r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        texts = [f"=== {each}\n{body}" for each, body in _split(_CASE, file.read())]
        position = next(number for number, text in enumerate(texts) if text.startswith(f"=== {name}\n"))
        asked = _EXIT.split(texts[position])[0].rstrip()
        texts[position] = f"{asked}\n--- exit {code}\n{told}"
        file.seek(0)
        file.truncate()
        file.write("\n\n".join(text.rstrip() for text in texts) + "\n")


def _split(pattern, text):
    first, *rest = pattern.split(text)
    assert not first.strip(), f"nothing stands before the first: {first!r}"
    return list(zip(rest[::2], rest[1::2], strict=True))


def _case(area, name, text):
    asked, *said = _EXIT.split(text, maxsplit=1)
    case = Case(area, name)
    if said:
        case.code, case.told = int(said[0]), said[1].rstrip()
    for head, body in _split(_PART, asked):
        what, _, which = head.partition(" ")
        if what == "file":
            case.files[which] = body.strip("\n") + "\n"
        elif what == "bytes":
            case.files[which] = literal_eval(body.strip())
        elif what == "without":
            case.files[which] = None
        else:
            assert what in {"table", "marker", "environment", "before", "run"}, f"{name}: there is no part {what!r}"
            setattr(case, what, body.strip())
    return case
