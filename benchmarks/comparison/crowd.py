"""The same tests, done by several processes at once: each with a worker of its own, all on one server, as with -n."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from comparison.timing import fitting, mean
from comparison.ways import CLONING, FLOOR, INSERT, OURS, PEERS, USUAL, chosen, open_bench

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue
    from multiprocessing.synchronize import Barrier
    from pathlib import Path

    from comparison.sizes import Size
    from comparison.timing import Figures
    from comparison.ways import Way

THROUGHPUT: Final = "tests per second"
WAYS: Final = (FLOOR, OURS, CLONING, *PEERS)
SLOW: Final = 0.25
"""Seconds. What takes longer by itself does one kind of test only: it costs the same with all of them."""
PATIENCE: Final = 300.0
"""Seconds that a process waits for the others."""

Told = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Part:
    """What each of the processes is to do, all of them the same at the same time: how many tests of each kind."""

    place: Path
    url: str
    size: Size
    tests: dict[str, dict[str, int]]


def part_of(place: Path, url: str, size: Size, alone: Figures) -> Part:
    """As many tests as one process does in half its time, in view of what each way took alone."""
    tests = {
        way: {
            test: fitting(500 * size.seconds, took, size.rounds)
            for test, took in alone[way].items()
            if took < 1000 * SLOW or test == INSERT
        }
        for way in WAYS
        if way in alone
    }
    return Part(place, url, size, tests)


def crowd(part: Part, workers: int) -> Figures:
    """Mean milliseconds of each kind of test, and tests per second of all processes together."""
    context = multiprocessing.get_context("spawn")
    barrier: Barrier = context.Barrier(workers)
    told: SimpleQueue[Told] = context.SimpleQueue()
    processes = [context.Process(target=take_part, args=(part, barrier, told)) for _ in range(workers)]
    for process in processes:
        process.start()
    found = [told.get() for _ in processes]
    for process in processes:
        process.join()
    return {way: together([each[way] for each in found]) for way in part.tests}


def together(seconds: list[dict[str, float]]) -> dict[str, float]:
    """Means of all processes. The throughput is that of a suite with as many of each usual test."""
    means = {test: round(1000 * sum(each[test] for each in seconds) / len(seconds), 2) for test in seconds[0]}
    usual = [max(each[test] for each in seconds) for test in USUAL if test in means]
    return {**means, THROUGHPUT: round(len(seconds) * len(usual) / sum(usual), 1)}


def take_part(part: Part, barrier: Barrier, told: SimpleQueue[Told]) -> None:
    """One process: a bench of its own for each way, so that nothing is left of the one before."""
    found: Told = {}
    try:
        for name, tests in part.tests.items():
            with open_bench(part.place, part.url, part.size) as bench:
                way = chosen((name,))[name](bench)
                found[name] = {test: at_once(way, name, test, number, barrier) for test, number in tests.items()}
    except BaseException:
        barrier.abort()
        raise
    finally:
        told.put(found)


def at_once(way: Way, name: str, test: str, number: int, barrier: Barrier) -> float:
    """Seconds of one test, while all other processes do the same one."""
    if number > 1:
        mean(way, name, test, 1)  # some make what they need when they are first asked
    barrier.wait(PATIENCE)
    seconds = mean(way, name, test, number)
    barrier.wait(PATIENCE)
    return seconds
