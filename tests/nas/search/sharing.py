"""Processes that search one study at the same time, and a log of what each of them measured."""

import multiprocessing
import os
import time
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nas.search import optimize
from nas.search.study import Study
from search_spaces.space import Genotype
from tests.nas.search.problems import LARGE_CHOICES, OBJECTIVES, evaluate_large

NUM_EVALUATIONS = 24
OPTIONS: Mapping[str, Any] = {
    "choices": LARGE_CHOICES,
    "objectives": OBJECTIVES,
    "searcher": "local-search",
    "batch_size": 6,
}
VOLATILE = ["seconds", "host"]


def search_here(
    study: str | Path | None,
    log: Path,
    *,
    seconds: float = 0.0,
    num: int = NUM_EVALUATIONS,
    meet: Barrier | None = None,
) -> pd.DataFrame:
    """Search in this process; each evaluation takes `seconds` and, when it ends, appends a line to `log`.

    The first one waits until all processes that `meet` are in theirs.
    """
    met = meet is None

    def measure(genotype: Genotype) -> dict[str, float]:
        nonlocal met
        if meet is not None and not met:
            met = meet.wait(60.0) >= 0
        time.sleep(seconds)
        line = f"{os.getpid()} {''.join(str(value) for value in genotype.values())}\n"
        with log.open("ab", buffering=0) as file:
            file.write(line.encode())
        return evaluate_large(genotype)

    return optimize(measure, **OPTIONS, num_evaluations=num, study=study)


def start(study: str | Path, log: Path, **options: Any) -> BaseProcess:
    """The same in a process of its own, which ends with this one."""
    context = multiprocessing.get_context("fork")
    process = context.Process(target=search_here, args=(study, log), kwargs=options, daemon=True)
    process.start()
    return process


def undisturbed(num: int = NUM_EVALUATIONS) -> pd.DataFrame:
    return optimize(evaluate_large, **OPTIONS, num_evaluations=num)


def logged(log: Path) -> list[tuple[int, str]]:
    """(process, genotype) of each evaluation that ended."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [(int(line.split()[0]), line.split()[1]) for line in lines]


def wait_for_lines(log: Path, num: int, *, timeout_s: float = 120.0) -> None:
    """Wait until so many evaluations have ended."""
    deadline_s = time.monotonic() + timeout_s
    while len(logged(log)) < num:
        assert time.monotonic() < deadline_s, f"{len(logged(log))} evaluations, not {num}, after {timeout_s:g} s"
        time.sleep(0.01)


def check_like_undisturbed(study: str | Path, num: int = NUM_EVALUATIONS) -> None:
    """Every row exactly once, and all of them those of one process that nobody disturbed."""
    frame = Study.load(study).frame()
    assert frame["index"].tolist() == list(range(num))
    assert not frame.duplicated([c.name for c in LARGE_CHOICES]).any()
    pd.testing.assert_frame_equal(frame.drop(columns=VOLATILE), undisturbed(num).drop(columns=VOLATILE))


def kill_at_random(study: Path, log: Path, *, num_kills: int, num: int, rng: np.random.Generator) -> int:
    """Search, killed with signal 9 at up to `num_kills` random moments, then let finish; how often it was killed.

    A moment is up to 50 ms after some evaluation, or after the start of the process.
    """
    killed = 0
    while True:
        process = start(study, log, seconds=0.005, num=num)
        if killed < num_kills:
            wanted = len(logged(log)) + int(rng.integers(0, 5))
            while process.is_alive() and len(logged(log)) < wanted:
                process.join(0.002)
            process.join(rng.uniform(0.0, 0.05))
            process.kill()
        process.join()
        if process.exitcode == 0:
            return killed
        assert process.exitcode == -9, process.exitcode
        killed += 1
