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
"""Runs something so many times in a row, after runs that warm it up, and returns the seconds a run took."""

MIN_SAMPLE_S = 0.2e-3
"""A sample lasts at least this long: thousands of clock ticks, and short against a scheduler's time slice."""

FASTEST_SHARE = 0.05
"""A latency is the mean of this share of its samples, the fastest ones: that of a machine left alone.

What else runs on a machine only ever slows a run down, so its fastest samples are those that nothing disturbed; medians
follow the neighbours of a virtual machine, whose processor was shared four fifths of the time when this was chosen.
"""

WARM_CALLS = 5
"""How often a sample runs untimed first, at most.

It takes several calls to bring a network back into the caches that the other runs of a round pushed it out of, most
where an outer cache holds what an inner one gave up: networks of 1 to 3 ms on an AMD EPYC took 7 to 22 % longer in the
second call than in the tenth, 3 to 12 % in the third, 0 to 3 % in the sixth.
"""

WARM_S = 10e-3
"""How long it does so, at most: networks of 3 to 5 ms took 0 to 3 % longer in the fourth call than later, and a round
of larger ones would take too long."""

MAX_LOOPS = 1_000
MAX_ROUNDS = 10_000
"""Limits that only a clock too coarse for the runs can reach."""


class Progress(Protocol):
    """What `InterleavedTiming` tells about its way; seconds of the budget here."""

    def __call__(self, done: float, total: float, message: str = "") -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyStats:
    """What repeated timing of one callable found."""

    latency_ms: float
    """Of one call: mean of the fastest rounds, see `FASTEST_SHARE`."""
    spread_pct: float
    """How far the latencies of odd and of even rounds are apart, in percent of this; 0 where there is one round."""
    num_runs: int
    """Timed calls in all samples."""


Round = tuple[float, ...]
"""Seconds that a call of each run took, all of them timed one after the other."""


def timed(run: Run, clock: Clock = time.perf_counter, *, awake_s: float = 0.0) -> Sampler:
    """The sampler of a callable, of which a sample begins with `WARM_CALLS` untimed calls, or those within `WARM_S`.

    Without them a looped short run is timed warm and a long one cold, and the parts of a network sum to less than the
    network. Untimed calls go on until `awake_s` seconds have passed. The first call counts only where it was faster, so
    where something disturbed the others.
    """

    def sample(num_loops: int) -> float:
        start_s = clock()
        run()
        first_s = passed_s = clock() - start_s
        num_calls = 1
        while passed_s < awake_s or (num_calls < WARM_CALLS and passed_s < WARM_S):
            run()
            num_calls += 1
            passed_s = clock() - start_s
        start_s = clock()
        for _ in range(num_loops):
            run()
        return min(first_s, (clock() - start_s) / num_loops)

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
    progress: Progress | None = None,
    clock: Clock = time.perf_counter,
) -> list[LatencyStats]:
    """What `InterleavedTiming` finds at one moment, of `budget_s` seconds."""
    timing = InterleavedTiming(samplers, num_warmup=num_warmup, clock=clock)
    timing.take(budget_s, min_rounds=min_rounds, progress=progress)
    return timing.stats()


class InterleavedTiming:
    """Times all `samplers` in rounds, so that a quiet minute of the machine falls on all of them alike.

    Every round takes one sample of each, as long as `choose_loops` says, in an order of its own. Rounds of several
    moments count together: a machine may be busy throughout one of them.

    Raises:
        ValueError: `num_warmup` is below one.
    """

    def __init__(self, samplers: Sequence[Sampler], *, num_warmup: int = 3, clock: Clock = time.perf_counter) -> None:
        if num_warmup < 1:
            raise ValueError(f"num_warmup={num_warmup} must be at least 1")
        self._samplers, self._num_warmup, self._clock = samplers, num_warmup, clock
        self._loops: list[int] = []
        self._rounds: list[Round] = []

    def take(self, budget_s: float, *, min_rounds: int = 5, progress: Progress | None = None) -> None:
        """Take rounds while the next one still fits into `budget_s` seconds, the first moment's warm-up included.

        There are at least `min_rounds`, whatever they take. Raises `ValueError` where that is below one.
        """
        if min_rounds < 1:
            raise ValueError(f"min_rounds={min_rounds} must be at least 1")
        if not self._samplers:
            return
        report, clock = progress or (lambda done, total, message="": None), self._clock
        start_s = clock()
        for index, sample in enumerate(self._samplers[len(self._loops) :]):
            self._loops.append(choose_loops(sample, self._num_warmup))
            report(0.0, budget_s, f"warm-up {index + 1}/{len(self._samplers)}")
        rounds_start_s = clock()
        warmup_s, taken = rounds_start_s - start_s, 0
        rounds = take_rounds(
            self._samplers, self._loops, budget_s=budget_s - warmup_s, min_rounds=min_rounds, clock=clock
        )
        for taken, seconds in enumerate(rounds, start=1):
            self._rounds.append(seconds)
            round_s = (clock() - rounds_start_s) / taken
            total_s = max(budget_s, warmup_s + round_s * max(min_rounds, taken))
            report(warmup_s + round_s * taken, total_s, f"round {taken}")
        report(budget_s, budget_s, f"{taken} rounds")

    def stats(self) -> list[LatencyStats]:
        """What `summarise` makes of all rounds, in order of the samplers."""
        return summarise(self._rounds, self._loops) if self._rounds else []


def choose_loops(sample: Sampler, num_warmup: int = 3) -> int:
    """How many calls make a sample of at least `MIN_SAMPLE_S`, after `num_warmup` samples of one call."""
    fastest_s = min(sample(1) for _ in range(num_warmup))
    if fastest_s * MAX_LOOPS <= MIN_SAMPLE_S:
        return MAX_LOOPS
    return max(1, math.ceil(MIN_SAMPLE_S / fastest_s))


def take_rounds(
    samplers: Sequence[Sampler],
    loops: Sequence[int],
    *,
    budget_s: float,
    min_rounds: int = 5,
    num_before: int = 0,
    clock: Clock = time.perf_counter,
) -> Iterator[Round]:
    """Rounds while the next one still fits into `budget_s` seconds; what is done with each of them takes part of these.

    Together with `num_before` earlier ones there are at least `min_rounds`, whatever they take. Each has an order of
    its own: none of the runs comes always after the same one, or twice in a row more often than the others.
    """
    start_s = round_start_s = clock()
    for number in range(num_before, MAX_ROUNDS):
        yield _take_round(samplers, loops, number)
        now_s = clock()
        round_s, round_start_s = now_s - round_start_s, now_s
        if number + 1 >= min_rounds and now_s - start_s + round_s > budget_s:
            return


def _take_round(samplers: Sequence[Sampler], loops: Sequence[int], number: int) -> Round:
    order = np.random.default_rng(number).permutation(len(samplers))
    seconds = {index: samplers[index](loops[index]) for index in order}
    return tuple(seconds[index] for index in range(len(samplers)))


def summarise(rounds: Sequence[Round], loops: Sequence[int]) -> list[LatencyStats]:
    """The latency of each run, and how well odd and even rounds agree about it."""
    samples_SR = np.array(rounds)
    latency_R = _fastest_s(samples_SR)
    apart_R = np.zeros_like(latency_R)
    if len(rounds) > 1:
        apart_R = np.abs(_fastest_s(samples_SR[::2]) - _fastest_s(samples_SR[1::2]))
    spread_R = 100 * apart_R / np.where(latency_R > 0, latency_R, 1.0)
    return [
        LatencyStats(latency_ms=1e3 * float(latency_s), spread_pct=float(spread), num_runs=len(rounds) * num_loops)
        for latency_s, spread, num_loops in zip(latency_R, spread_R, loops, strict=True)
    ]


def _fastest_s(samples_SR: np.ndarray) -> np.ndarray:
    num_fastest = math.ceil(FASTEST_SHARE * len(samples_SR))
    return np.sort(samples_SR, axis=0)[:num_fastest].mean(axis=0)
