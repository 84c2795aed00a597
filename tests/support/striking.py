"""Strikes at random moments, and what must be true after each of them."""

from __future__ import annotations

import random
import time
import uuid

from attacks import times
from killing import strike


class Attack:
    """Runs of one kind that are struck one after another; the seed is part of every failure's text."""

    def __init__(self, site, arguments=(), before=lambda: None, kind="pytest"):
        self.site = site
        self.arguments = arguments
        self.before = before
        self.kind = kind
        self.seed = uuid.uuid4().int
        self.choice = random.Random(self.seed)
        self.peace = site.peace
        self.struck = {}

    def span(self):
        """How long such a run takes from its start until nothing of it is left."""
        self.before()
        started = time.monotonic()
        run = self.begin()
        assert run.ended() == 0, run.text
        self.site.is_quiet()
        return time.monotonic() - started

    def begin(self):
        return self.site.begin(*self.arguments, kind=self.kind)

    def round(self, strikes):
        """Prepare, start, ``strikes(run)``, which says whom; then see to it that the next run finds all well."""
        self.before()
        run = self.begin()
        told = "nobody"
        try:
            told = strikes(run)
            code = run.ended()
            if told.startswith("guard") and self.kind == "pytest":
                assert code == 0, run.text
            self.sees_all_well()
        except BaseException as error:
            error.add_note(f"seed {self.seed}, after {self.struck}: {told} of {self.arguments}, which told\n{run.text}")
            raise
        if told != "nobody":
            kind = told.split(" at ")[0]
            self.struck[kind] = self.struck.get(kind, 0) + 1
        return told

    def sees_all_well(self):
        """The next run passes with no hand laid on, and leaves what there was before."""
        if self.choice.random() < 0.3:
            time.sleep(self.choice.uniform(0, 1))  # else the next run comes while the last one's server still stops
        self.site.passes(*(["-n", "2"] if self.choice.random() < 0.1 else []))
        now = self.site.standing()
        differing = {what: (self.peace[what], now[what]) for what in now if now[what] != self.peace[what]}
        assert not differing, f"before and after: {differing}"

    def at_random(self, span, only=None):
        """Strike anybody who lives at a random moment of the run."""

        def strikes(run):
            moment = self.choice.uniform(0, span)
            time.sleep(moment)
            victims = self.site.victims(run)
            kinds = sorted(victims.keys() & (only or victims.keys()))
            if not kinds:
                return "nobody"
            kind = self.choice.choice(kinds)
            pids = victims[kind] if "all" in kind or "and" in kind else [self.choice.choice(victims[kind])]
            return f"{kind} at {moment:.3f} of {span:.3f} s" if strike(pids) else "nobody"

        return strikes

    def while_it(self, pattern, seconds=0.004):
        """Strike whoever takes part in a statement like this, once it is seen running."""

        def strikes(run):
            backend = self.site.caught(pattern, run)
            if not backend:
                return "nobody"
            time.sleep(self.choice.uniform(0, seconds))
            victims = self.site.victims(run) if self.choice.random() < 0.3 else {}
            victims |= {"pytest": [run.pid], "backend": [backend]}
            kind = self.choice.choice(sorted(victims))
            return f"{kind} at {pattern}" if strike(victims[kind]) else "nobody"

        return strikes

    def after_its_end(self, span):
        """Strike while the guard stops the server, or later; it is quick, so who is who must be known before."""

        def strikes(run):
            kinds = {}
            while "postmaster" not in kinds and not run.is_over:
                victims = self.site.victims(run)
                kinds = {kind: victims[kind] for kind in ("guard", "postmaster", "server", "all") if kind in victims}
            while "passed" not in run.text and not run.is_over:
                time.sleep(0.001)
            time.sleep(self.choice.uniform(0, span))
            kind = self.choice.choice(sorted(kinds) or ["all"])
            return f"{kind} at the end" if strike(kinds.get(kind, ())) else "nobody"

        return strikes


def struck(attack, strikes, full, tried, what):
    """Go on until so many were hit; a moment at which nobody was left does not count."""
    wanted, hit = times(full), 0
    for _ in range(wanted * 3):
        hit += attack.round(strikes) != "nobody"
        if hit == wanted:
            break
    assert hit == wanted, attack.struck
    tried(f"{what}: {', '.join(f'{kind} {number}' for kind, number in sorted(attack.struck.items()))}", hit)
