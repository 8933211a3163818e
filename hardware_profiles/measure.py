"""Robust timing of anything that can be run again and again. Needs numpy alone, so that it can travel."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Run = Callable[[], object]
Clock = Callable[[], float]
Sampler = Callable[[int], float]
"""Runs something so many times in a row, after one run that isn't timed, and returns the seconds a run took."""

MIN_SAMPLE_S = 0.2e-3
"""A sample lasts at least this long: thousands of clock ticks, and short against a scheduler's time slice."""

REFERENCE_EVERY = 20
"""So many samples of a round lie between two of the reference."""

OUTLIER_RATIO = 1.3
"""A sample is dropped where the reference beside it took more than this times the fastest tenth of the references."""

FEWEST_KEPT = 1 / 3
"""This share of each run's samples stays in any case, those with the fastest references."""

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


@dataclass(frozen=True, slots=True)
class Round:
    """One sample of every run, taken one after the other."""

    seconds: tuple[float, ...]
    """Of one call of each run, in their order."""
    references_s: tuple[float, ...]
    """Of each sample: the slower of the reference's samples before and after it; 1 where there is no reference."""


def timed(run: Run, clock: Clock = time.perf_counter, *, rest_s: float = 0.0, warm_s: float = 0.0) -> Sampler:
    """The sampler of a callable; every sample begins with a pause of `rest_s` and untimed calls for `warm_s` seconds.

    Its untimed call brings back into the caches what the other runs of a round pushed out. Without it a looped short
    run is timed warm and a long one cold: 24 convolutional networks of up to 3 ms summed to 0.74-0.95 of the whole,
    with it to 0.86-1.00 (ONNX Runtime 1.32, one thread of an AMD EPYC, one run each of 4 s for 16 callables).
    """

    def sample(num_loops: int) -> float:
        if rest_s:
            time.sleep(rest_s)
        start_s = clock()
        run()
        while clock() - start_s < warm_s:
            run()
        start_s = clock()
        for _ in range(num_loops):
            run()
        return (clock() - start_s) / num_loops

    return sample


def measure(run: Run, *, num_warmup: int = 5, budget_s: float = 0.25, clock: Clock = time.perf_counter) -> LatencyStats:
    """Time `run()` and summarise it in milliseconds; warm-up runs are thrown away."""
    return measure_interleaved([timed(run, clock)], budget_s=budget_s, num_warmup=num_warmup, clock=clock)[0]


def measure_interleaved(
    samplers: Sequence[Sampler],
    *,
    budget_s: float,
    num_warmup: int = 3,
    min_rounds: int = 5,
    reference: Sampler | None = None,
    progress: Progress | None = None,
    clock: Clock = time.perf_counter,
) -> list[LatencyStats]:
    """Time all `samplers` in rounds, so that a slow minute of the machine falls on all of them alike.

    Every round takes one sample of each, as long as `choose_loops` says; every second round goes in reverse order.
    Rounds go on while the next one still fits into `budget_s` seconds, warm-up included; there are at least
    `min_rounds` of them, whatever they take. What a `reference` (any steady sampler) is for, `summarise` says.

    Returns one `LatencyStats` a sampler, in order.

    Raises:
        ValueError: `num_warmup` or `min_rounds` is below one.
    """
    if num_warmup < 1 or min_rounds < 1:
        raise ValueError(f"num_warmup={num_warmup} and min_rounds={min_rounds} must be at least 1")
    if not samplers:
        return []
    report = progress or (lambda done, total, message="": None)
    start_s = clock()
    loops = []
    for index, sample in enumerate(samplers):
        loops.append(choose_loops(sample, num_warmup))
        report(0.0, budget_s, f"warm-up {index + 1}/{len(samplers)}")
    steady = (reference, choose_loops(reference, num_warmup)) if reference is not None else None
    rounds: list[Round] = []
    rounds_start_s = clock()
    budget_left_s = budget_s - (rounds_start_s - start_s)
    for taken in take_rounds(samplers, loops, steady, budget_s=budget_left_s, min_rounds=min_rounds, clock=clock):
        rounds.append(taken)
        round_s = (clock() - rounds_start_s) / len(rounds)
        total_s = max(budget_s, rounds_start_s - start_s + round_s * max(min_rounds, len(rounds)))
        report(rounds_start_s - start_s + round_s * len(rounds), total_s, f"round {len(rounds)}")
    report(budget_s, budget_s, f"{len(rounds)} rounds")
    return summarise(rounds, loops)


def choose_loops(sample: Sampler, num_warmup: int = 3) -> int:
    """How many calls make a sample of at least `MIN_SAMPLE_S`, after `num_warmup` samples of one call."""
    fastest_s = min(sample(1) for _ in range(num_warmup))
    if fastest_s * MAX_LOOPS <= MIN_SAMPLE_S:
        return MAX_LOOPS
    return max(1, math.ceil(MIN_SAMPLE_S / fastest_s))


def take_rounds(
    samplers: Sequence[Sampler],
    loops: Sequence[int],
    reference: tuple[Sampler, int] | None,
    *,
    budget_s: float,
    min_rounds: int = 5,
    num_before: int = 0,
    clock: Clock = time.perf_counter,
) -> Iterator[Round]:
    """Rounds while the next one still fits into `budget_s` seconds; what is done with each of them takes part of these.

    Together with `num_before` earlier ones there are at least `min_rounds`, whatever they take; every second goes in
    reverse order.
    """
    start_s = round_start_s = clock()
    for number in range(num_before, MAX_ROUNDS):
        yield take_round(samplers, loops, reference, backward=number % 2 == 1)
        now_s = clock()
        round_s, round_start_s = now_s - round_start_s, now_s
        if number + 1 >= min_rounds and now_s - start_s + round_s > budget_s:
            return


def take_round(
    samplers: Sequence[Sampler], loops: Sequence[int], reference: tuple[Sampler, int] | None, *, backward: bool
) -> Round:
    """One sample of each, and of the `reference` (with its number of calls) before, after and in between."""
    num = len(samplers)
    order = list(reversed(range(num))) if backward else list(range(num))
    seconds, references_s = [0.0] * num, [1.0] * num
    before_s = 1.0 if reference is None else reference[0](reference[1])
    for start in range(0, num, REFERENCE_EVERY):
        part = order[start : start + REFERENCE_EVERY]
        for index in part:
            seconds[index] = samplers[index](loops[index])
        after_s = 1.0 if reference is None else reference[0](reference[1])
        for index in part:
            references_s[index] = max(before_s, after_s)
        before_s = after_s
    return Round(tuple(seconds), tuple(references_s))


def summarise(rounds: Sequence[Round], loops: Sequence[int]) -> list[LatencyStats]:
    """Medians over samples, each brought to the machine's usual speed by the references of its round.

    Samples beside which something else was going on are dropped (`_undisturbed`). A round in which the median reference
    of those that are left took r times that of all rounds was r times slower than usual: its samples are divided by r.
    """
    references_SR = np.array([round.references_s for round in rounds])
    kept_SR = _undisturbed(references_SR)
    usual_s = np.median(references_SR[kept_SR])
    slowness_S = [
        np.median(references_R[kept_R]) / usual_s if kept_R.any() else 1.0
        for references_R, kept_R in zip(references_SR, kept_SR, strict=True)
    ]
    samples_SR = np.array([round.seconds for round in rounds]) / np.array(slowness_S)[:, None]
    lower_R, median_R, upper_R = np.nanpercentile(np.where(kept_SR, samples_SR, np.nan), [25, 50, 75], axis=0)
    spread_R = 100 * (upper_R - lower_R) / np.where(median_R > 0, median_R, 1.0)
    return [
        LatencyStats(median_ms=1e3 * float(median_s), spread_pct=float(spread), num_runs=int(num_samples) * num_loops)
        for median_s, spread, num_samples, num_loops in zip(median_R, spread_R, kept_SR.sum(axis=0), loops, strict=True)
    ]


def _undisturbed(references_SR: np.ndarray) -> np.ndarray:
    """Which samples stay, by `OUTLIER_RATIO` and `FEWEST_KEPT`.

    The fastest tenth and not the median tells how fast the machine is when left alone: a virtual machine of two
    processors that its host moves to one core for a while runs two threads as fast as one, maybe most of the time.
    """
    kept_SR = references_SR <= OUTLIER_RATIO * np.percentile(references_SR, 10)
    num_always = math.ceil(FEWEST_KEPT * len(references_SR))
    fastest_first_SR = np.argsort(references_SR, axis=0, kind="stable")
    np.put_along_axis(kept_SR, fastest_first_SR[:num_always], True, axis=0)
    return kept_SR
