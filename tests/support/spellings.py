"""Names of environments as people, shells and files spell them, and the flags of a `seeddb apply`."""

from __future__ import annotations

import itertools

WORDS = ("production", "prod", "live", "prd")
SAFE = (
    *("dev", "development", "test", "testing", "staging", "stage", "qa", "ci", "local", "sandbox", "demo", "review"),
    *("preprod", "pre-production", "pre_prod", "non-prod", "nonprod", "NonProd", "not-live", "pre-live"),
    *("product", "products", "productive", "reproduction", "delivery", "olive", "alive", "livestock", "livery"),
)
NAMES = ("ENVIRONMENT", "APP_ENV", "DJANGO_ENV", "FLASK_ENV", "ENV")
BLANKS = ("", " ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\ufeff")
QUOTES = ("", "'", '"', "`", "\u201c")
AROUND = ("eu", "shop", "aws", "k8s", "west", "2", "01", "blue", "test", "the", "\u00e9t\u00e9", "\u65e5\u672c")
BETWEEN = ("-", "_", ".", " ", ":", "/", ", ", "\\", "@", "=", " (", "\n", "\t")
_WIDE = {chr(code): chr(code + 0xFEE0) for code in range(0x21, 0x7F)}
_TWINS = {
    "o": "\u043e",
    "p": "\u0440",
    "c": "\u0441",
    "e": "\u0435",
    "i": "\u0456",
    "d": "\u0501",
    "v": "\u0475",
    "O": "\u041e",
    "P": "\u0420",
    "C": "\u0421",
    "E": "\u0415",
    "I": "\u0406",
    "T": "\u0422",
    "L": "\u04c0",
}
_GREEK = {"o": "\u03bf", "p": "\u03c1", "v": "\u03bd", "i": "\u03b9", "N": "\u039d", "O": "\u039f", "T": "\u03a4"}
_TURKISH = {"i": "\u0131", "I": "\u0130"}
_BOLD = {**{chr(97 + n): chr(0x1D41A + n) for n in range(26)}, **{chr(65 + n): chr(0x1D400 + n) for n in range(26)}}
ALPHABETS = (_WIDE, _TWINS, _GREEK, _TURKISH, _BOLD)
UNSEEN = ("\u200b", "\u200d", "\u00ad", "\u2060", "\u0301")
FLAGS = ("--force", "--accept", "--reset", "--yes", "--dry-run", "--json")


def cased(chance, word):
    """The word in capitals, small letters, or anything between."""
    whole = chance.choice((str.lower, str.upper, str.title, str.capitalize, None))
    return whole(word) if whole else "".join(chance.choice((each.lower(), each.upper())) for each in word)


def production(chance):
    """One spelling of production. Never with a word before it that says it is not."""
    text = cased(chance, chance.choice(WORDS))
    if chance.random() < 0.25:
        twins = chance.choice(ALPHABETS)
        text = "".join(twins.get(each, each) if chance.random() < 0.6 else each for each in text)
    if chance.random() < 0.15:
        at = chance.randrange(1, len(text))
        text = text[:at] + chance.choice(UNSEEN) + text[at:]
    for side in range(2):
        if chance.random() < 0.3:
            more = [cased(chance, chance.choice(AROUND)), chance.choice(BETWEEN)]
            text = "".join(more) + text if side else text + "".join(reversed(more))
    if chance.random() < 0.1:
        text += str(chance.randrange(100))
    return wrapped(chance, text)


def harmless(chance):
    """One spelling of somewhere else."""
    word = chance.choice(SAFE)
    # In capitals and small letters at random, "nonProd" and "olIve" would be anybody's guess.
    text = chance.choice((str.lower, str.upper, str.capitalize, str))(word)
    if chance.random() < 0.2:
        text += chance.choice(("-", "_", "", " ")) + str(chance.randrange(100))
    return wrapped(chance, text)


def wrapped(chance, text):
    mark = chance.choice(QUOTES) if chance.random() < 0.3 else ""
    before, after = (chance.choice(BLANKS) if chance.random() < 0.3 else "" for _ in range(2))
    return f"{before}{mark}{text}{mark}{after}"


def surroundings(chance, values, names=NAMES):
    """Some of the variables, their names in any case, with the values and nothing in the others."""
    chosen = chance.sample(names, len(values))
    found = {
        cased(chance, name) if chance.random() < 0.15 else name: value
        for name, value in zip(chosen, values, strict=True)
    }
    for name in names:
        if name not in chosen and chance.random() < 0.2:
            found[name] = ""
    return found


def moved_to_dotenv(chance, variables):
    """The variables that stay in the environment, and the text of a `.env` with the others."""
    moved = chance.sample(sorted(variables), chance.randrange(len(variables) + 1))
    return {name: value for name, value in variables.items() if name not in moved}, "\n".join(
        chance.choice(("", "# ours\n", "\n  ", "export ")) + f"{name}={dotenv_value(chance, variables[name])}"
        for name in moved
    )


def dotenv_value(chance, value):
    """A value as a line of `.env` may have it."""
    plain = value.strip() == value and value.isalnum()
    marks = ("", "'", '"') if plain else ("'", '"')
    mark = chance.choice(marks)
    return mark + (value.replace("\\", "\\\\").replace(mark, f"\\{mark}") if mark else value) + mark


def flags(chance):
    """Some flags, in any order."""
    return chance.sample(FLAGS, chance.randrange(len(FLAGS) + 1))


def all_flags():
    """Every set of flags."""
    return itertools.chain.from_iterable(itertools.combinations(FLAGS, size) for size in range(len(FLAGS) + 1))
