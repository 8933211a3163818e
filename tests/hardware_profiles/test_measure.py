"""Timing, with a clock that only the timed runs move."""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_profiles import measure as timing
from hardware_profiles.measure import FASTEST_SHARE, MAX_LOOPS, MIN_SAMPLE_S, WARM_CALLS, LatencyStats, measure, timed


class FakeClock:
    """Seconds that pass only when a run says so."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slowdown = 1.0

    def __call__(self) -> float:
        return self.now_s


class FakeRun:
    """Takes its scripted durations one after the other, then the last one for ever."""

    def __init__(self, clock: FakeClock, *durations_ms: float, name: str = "", log: list[str] | None = None) -> None:
        self.clock, self.durations_ms, self.name, self.log = clock, durations_ms, name, log
        self.num_calls = 0

    def __call__(self) -> None:
        duration_ms = self.durations_ms[min(self.num_calls, len(self.durations_ms) - 1)]
        self.clock.now_s += 1e-3 * duration_ms * self.clock.slowdown
        self.num_calls += 1
        if self.log is not None:
            self.log.append(self.name)


def measure_interleaved(
    runs: Sequence[Callable[[], object]], *, clock: Callable[[], float], **options: Any
) -> list[LatencyStats]:
    """Of callables, by a clock of the test's own."""
    return timing.measure_interleaved([timed(run, clock) for run in runs], clock=clock, **options)


@given(st.lists(st.floats(0.001, 20), min_size=1, max_size=6))
def test_steady_runs_are_timed_exactly_and_in_order(durations_ms: list[float]) -> None:
    clock = FakeClock()
    stats = measure_interleaved([FakeRun(clock, value) for value in durations_ms], budget_s=0.05, clock=clock)
    assert [stat.latency_ms for stat in stats] == pytest.approx(durations_ms)
    assert all(stat.spread_pct < 1e-3 for stat in stats)


def test_warm_up_runs_are_thrown_away() -> None:
    clock = FakeClock()
    run = FakeRun(clock, *[50, 40] * 5, 1)  # an untimed and a timed call each
    assert measure(run, num_warmup=5, budget_s=0.3, clock=clock).latency_ms == pytest.approx(1)


def test_short_runs_are_looped_until_a_sample_is_long_enough() -> None:
    clock = FakeClock()
    run = FakeRun(clock, 0.03)
    stats = measure_interleaved([run], budget_s=0, min_rounds=5, num_warmup=2, clock=clock)[0]
    num_loops = stats.num_runs // 5
    assert num_loops * 0.03e-3 >= MIN_SAMPLE_S > (num_loops - 1) * 0.03e-3
    num_before = WARM_CALLS * (2 + 5)  # calls before each sample, of which two find out how long a call takes
    assert run.num_calls == stats.num_runs + num_before + 2


@given(st.lists(st.floats(1, 10), min_size=2, max_size=70))
def test_a_latency_is_the_mean_of_the_fastest_samples(samples_ms: list[float]) -> None:
    clock, untimed_ms = FakeClock(), 77.0
    run = FakeRun(
        clock, untimed_ms, 1.0, *(duration_ms for sample_ms in samples_ms for duration_ms in (untimed_ms, sample_ms))
    )
    stats = measure_interleaved([run], budget_s=0, num_warmup=1, min_rounds=len(samples_ms), clock=clock)[0]

    def fastest_ms(found_ms: list[float]) -> float:
        return float(np.mean(sorted(found_ms)[: math.ceil(FASTEST_SHARE * len(found_ms))]))

    expected_ms = fastest_ms(samples_ms)
    apart_ms = abs(fastest_ms(samples_ms[::2]) - fastest_ms(samples_ms[1::2]))
    assert stats.latency_ms == pytest.approx(expected_ms)
    assert stats.spread_pct == pytest.approx(100 * apart_ms / expected_ms, abs=1e-6)
    assert stats.num_runs == len(samples_ms)


def test_the_first_call_counts_where_something_disturbed_the_others() -> None:
    clock = FakeClock()
    assert timed(FakeRun(clock, 20, 30, 30), clock)(2) == pytest.approx(20e-3)
    assert timed(FakeRun(clock, 40, 30, 30), clock)(2) == pytest.approx(30e-3)


def test_every_round_takes_one_sample_of_each_run_in_an_order_of_its_own() -> None:
    clock, log = FakeClock(), []
    runs = [FakeRun(clock, 20, name=name, log=log) for name in "abc"]
    measure_interleaved(runs, budget_s=0, num_warmup=1, min_rounds=60, clock=clock)
    calls = "".join(log)
    assert calls[::2] == calls[1::2]  # an untimed and a timed one
    rounds = [calls[place : place + 6 : 2] for place in range(6, len(calls), 6)]  # after the warm-up
    assert set(rounds) == {"".join(order) for order in itertools.permutations("abc")}


@given(st.floats(0.02, 1.0), st.integers(1, 8))
def test_measuring_stops_at_the_budget_but_not_before_the_fewest_rounds(budget_s: float, min_rounds: int) -> None:
    clock = FakeClock()
    runs = [FakeRun(clock, 13), FakeRun(clock, 17)]
    stats = measure_interleaved(runs, budget_s=budget_s, num_warmup=2, min_rounds=min_rounds, clock=clock)
    round_s = 2 * 0.030
    fewest_s = 4 * 0.030 + min_rounds * round_s
    assert clock.now_s <= max(budget_s, fewest_s) + 1e-9
    assert clock.now_s > budget_s - round_s - 1e-9
    assert stats[0].num_runs == stats[1].num_runs >= min_rounds


def test_rounds_of_several_moments_count_together() -> None:
    clock, log = FakeClock(), []
    runs = [FakeRun(clock, 20, name="a", log=log), FakeRun(clock, 40, name="b", log=log)]
    interleaved = timing.InterleavedTiming([timed(run, clock) for run in runs], num_warmup=1, clock=clock)
    clock.slowdown = 1.5  # busy throughout
    interleaved.take(0, min_rounds=1)
    assert [stat.latency_ms for stat in interleaved.stats()] == pytest.approx([30, 60])
    clock.slowdown = 1.0
    interleaved.take(0, min_rounds=2)
    assert [stat.latency_ms for stat in interleaved.stats()] == pytest.approx([20, 40])
    assert [stat.num_runs for stat in interleaved.stats()] == [3, 3]
    assert len(log) == 4 * (1 + 3)  # warmed up once


def test_most_of_the_time_may_be_slow() -> None:
    """As on a virtual machine whose neighbours share its processor: spells of 20 ms, four of five are slow."""
    clock, rng = FakeClock(), np.random.default_rng(0)
    slow_spells = rng.random(10_000) < 0.8

    class Shared(FakeRun):
        def __call__(self) -> None:
            self.clock.slowdown = 1.7 if slow_spells[int(self.clock.now_s / 0.02)] else 1.0
            super().__call__()

    durations_ms = [0.02, 0.3, 1.0, 4.0]
    stats = measure_interleaved([Shared(clock, value) for value in durations_ms], budget_s=10, clock=clock)
    assert [stat.latency_ms for stat in stats] == pytest.approx(durations_ms, rel=1e-6)
    assert all(stat.spread_pct < 1e-3 for stat in stats)


def test_a_slow_spell_hits_all_runs_alike_so_their_ratio_stays() -> None:
    clock = FakeClock()

    class SlowAfter(FakeRun):
        def __call__(self) -> None:
            self.clock.slowdown = 1.0 if self.clock.now_s < 0.1 else 1.6
            super().__call__()

    stats = measure_interleaved([SlowAfter(clock, 2), SlowAfter(clock, 4)], budget_s=0.4, clock=clock)
    assert stats[1].latency_ms / stats[0].latency_ms == pytest.approx(2)


@pytest.mark.parametrize(
    ("untimed_ms", "awake_s"), [([0.2] * WARM_CALLS, 0.0), ([4] * 3, 0.0), ([20], 0.0), ([0.15] * 7, 1e-3)]
)
def test_a_sample_runs_untimed_some_times_but_not_for_long(untimed_ms: list[float], awake_s: float) -> None:
    clock = FakeClock()
    run = FakeRun(clock, *untimed_ms, 0.1)
    assert timed(run, clock, awake_s=awake_s)(4) == pytest.approx(1e-4)
    assert run.num_calls == len(untimed_ms) + 4


def test_a_drift_hits_all_runs_alike_so_their_ratio_stays() -> None:
    clock = FakeClock()

    class Heating(FakeRun):
        def __call__(self) -> None:
            self.clock.slowdown = 1 + 0.2 * self.clock.now_s
            super().__call__()

    stats = measure_interleaved([Heating(clock, 2), Heating(clock, 4)], budget_s=2, clock=clock)
    assert stats[1].latency_ms / stats[0].latency_ms == pytest.approx(2, rel=0.01)


def test_progress_rises_to_its_total() -> None:
    clock, calls = FakeClock(), []
    measure_interleaved(
        [FakeRun(clock, 5)],
        budget_s=0.2,
        progress=lambda done, total, message="": calls.append((done, total, message)),
        clock=clock,
    )
    shares = [done / total for done, total, _ in calls]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(calls) > 5


def test_a_clock_that_stands_still_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "MAX_ROUNDS", 20)
    stats = measure_interleaved([lambda: None], budget_s=0, clock=lambda: 0.0)[0]
    assert stats == LatencyStats(latency_ms=0.0, spread_pct=0.0, num_runs=20 * MAX_LOOPS)


def test_nothing_to_time_gives_nothing() -> None:
    assert timing.measure_interleaved([], budget_s=1) == []


def test_no_warm_up_is_refused() -> None:
    with pytest.raises(ValueError, match="num_warmup=0"):
        measure(lambda: None, num_warmup=0)


def test_the_real_clock_sees_a_run_of_known_length() -> None:
    def spin() -> None:
        end_s = time.perf_counter() + 1e-3
        while time.perf_counter() < end_s:
            pass

    assert measure(spin, budget_s=0.05).latency_ms >= 1  # a busy machine makes it longer, nothing makes it shorter
