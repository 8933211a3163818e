"""Robust timing of any zero-argument callable."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Run = Callable[[], object]
Clock = Callable[[], float]

MIN_SAMPLE_S = 0.2e-3
"""A sample lasts at least this long: thousands of clock ticks, and short against a scheduler's time slice."""

OUTLIER_RATIO = 1.3
"""A round whose reference took more than this times the median reference is dropped."""

MAX_LOOPS = 1_000
MAX_ROUNDS = 10_000
"""Limits that only a clock too coarse for the runs can reach."""


class Progress(Protocol):
    """What `measure_interleaved` tells about its way; seconds of the budget here."""

    def __call__(self, done: float, total: float, message: str = "") -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyStats:
    """What repeated timing of one callable found."""

    median_ms: float
    """Median over the samples of the time of one call."""
    spread_pct: float
    """Interquartile range of the samples in percent of their median."""
    num_runs: int
    """Timed calls in the samples that were kept."""


def measure(run: Run, *, num_warmup: int = 5, budget_s: float = 0.25, clock: Clock = time.perf_counter) -> LatencyStats:
    """Time `run()` and summarise it in milliseconds; warm-up runs are thrown away."""
    return measure_interleaved([run], budget_s=budget_s, num_warmup=num_warmup, clock=clock)[0]


def measure_interleaved(
    runs: Sequence[Run],
    *,
    budget_s: float,
    num_warmup: int = 5,
    min_rounds: int = 5,
    reference: Run | None = None,
    progress: Progress | None = None,
    clock: Clock = time.perf_counter,
) -> list[LatencyStats]:
    """Time all `runs` in rounds, so that a slow minute of the machine falls on all of them alike.

    After `num_warmup` calls each, a run's loop count is fixed so that one sample lasts at least `MIN_SAMPLE_S`. Every
    round takes one sample of each run, after one untimed call of it; every second round goes in reverse order. Rounds
    go on while the next one still fits into `budget_s` seconds, warm-up included; there are at least `min_rounds` of
    them, whatever they take.

    With a `reference` (any steady callable), it is timed before and after every round. A round is dropped when the
    slower of its two is more than `OUTLIER_RATIO` times the median over rounds, so at least half of them always stay.

    Returns one `LatencyStats` a run, in order.

    Raises:
        ValueError: `num_warmup` or `min_rounds` is below one.
    """
    if num_warmup < 1 or min_rounds < 1:
        raise ValueError(f"num_warmup={num_warmup} and min_rounds={min_rounds} must be at least 1")
    if not runs:
        return []
    start_s = clock()
    loops = []
    for index, run in enumerate(runs):
        loops.append(_warm_up(run, num_warmup, clock))
        if progress is not None:
            progress(0.0, budget_s, f"warm-up {index + 1}/{len(runs)}")
    reference_loops = _warm_up(reference, num_warmup, clock) if reference is not None else 0

    samples_s: list[list[float]] = []
    reference_s: list[float] = []
    round_start_s = clock()
    while len(samples_s) < MAX_ROUNDS:
        backward = len(samples_s) % 2 == 1
        before_s = _sample(reference, reference_loops, clock) if reference is not None else 1.0
        samples_s.append(_round(runs, loops, backward, clock))
        after_s = _sample(reference, reference_loops, clock) if reference is not None else 1.0
        reference_s.append(max(before_s, after_s))
        now_s = clock()
        round_s, round_start_s = now_s - round_start_s, now_s
        elapsed_s = now_s - start_s
        if progress is not None:
            total_s = max(budget_s, elapsed_s + (min_rounds - len(samples_s)) * round_s)
            progress(min(elapsed_s, total_s), total_s, f"round {len(samples_s)}")
        if len(samples_s) >= min_rounds and elapsed_s + round_s > budget_s:
            break
    if progress is not None:
        progress(budget_s, budget_s, f"{len(samples_s)} rounds")
    kept_SR = np.array(samples_s)[_steady_rounds(reference_s)]
    return [_summarise(column_S, num_loops) for column_S, num_loops in zip(kept_SR.T, loops, strict=True)]


def _warm_up(run: Run, num_warmup: int, clock: Clock) -> int:
    """Call `run` and return how many calls make a sample of at least `MIN_SAMPLE_S`."""
    fastest_s = math.inf
    for _ in range(num_warmup):
        start_s = clock()
        run()
        fastest_s = min(fastest_s, clock() - start_s)
    if fastest_s * MAX_LOOPS <= MIN_SAMPLE_S:
        return MAX_LOOPS
    return max(1, math.ceil(MIN_SAMPLE_S / fastest_s))


def _round(runs: Sequence[Run], loops: Sequence[int], backward: bool, clock: Clock) -> list[float]:
    """One sample of every run, in seconds a call, listed in the order of `runs`."""
    order = reversed(range(len(runs))) if backward else range(len(runs))
    sample_s = {index: _sample(runs[index], loops[index], clock) for index in order}
    return [sample_s[index] for index in range(len(runs))]


def _sample(run: Run, num_loops: int, clock: Clock) -> float:
    """Seconds a call, over `num_loops` calls in a row, after one that isn't timed.

    The untimed call brings back into the caches what the other runs of the round pushed out. Without it a looped short
    run is timed warm and a long one cold: 24 convolutional networks of up to 3 ms summed to 0.74-0.95 of the whole,
    with it to 0.86-1.00 (ONNX Runtime 1.32, one thread of an AMD EPYC, one run each of 4 s for 16 callables).
    """
    run()
    start_s = clock()
    for _ in range(num_loops):
        run()
    return (clock() - start_s) / num_loops


def _steady_rounds(reference_s: Sequence[float]) -> np.ndarray:
    """A mask of the rounds in which the machine was as fast as usual."""
    seconds_S = np.array(reference_s)
    return seconds_S <= OUTLIER_RATIO * np.median(seconds_S)


def _summarise(seconds_S: np.ndarray, num_loops: int) -> LatencyStats:
    lower_s, median_s, upper_s = np.percentile(seconds_S, [25, 50, 75])
    spread_pct = 100 * (upper_s - lower_s) / median_s if median_s > 0 else 0.0
    return LatencyStats(
        median_ms=float(1e3 * median_s), spread_pct=float(spread_pct), num_runs=len(seconds_S) * num_loops
    )
