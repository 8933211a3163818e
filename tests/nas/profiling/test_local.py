"""A profile of the tiny space: complete, of use, and refused when it can't be."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest

from hardware_profiles.errors import ProfileError
from hardware_profiles.measure import Sampler
from hardware_profiles.profile import HardwareProfile
from hardware_profiles.runtimes import Runtime, Session, get_runtime
from nas.errors import UserError
from nas.profiling import ProfilePlan, measure_plan, plan_profile, profile_device
from nas.profiling.plan import PlannedNetwork
from search_spaces.precision import PRECISIONS
from tests.nas.conftest import NUM_FIT, NUM_HELD_OUT
from tests.tiny_space import tiny


def test_every_row_is_measured(tiny_profile: HardwareProfile) -> None:
    assert all(row.latency_ms >= 0 and row.num_runs >= 1 and row.size_bytes > 0 for row in tiny_profile.rows)
    assert tiny_profile.call_overhead_ms > 0
    assert tiny_profile.space_fingerprint == tiny().fingerprint


def test_int8_rows_are_smaller_than_fp32_ones_where_weights_are_many(tiny_profile: HardwareProfile) -> None:
    sizes = {(row.key, row.precision): row.size_bytes for row in tiny_profile.rows}
    wide = next(key for key, _ in sizes if key.startswith("mlp ratio=4 @ x:BCHW:32"))
    assert sizes[wide, "int8"] < 0.6 * sizes[wide, "fp32"]
    assert sizes[wide, "int8-dynamic"] < 0.6 * sizes[wide, "fp32"]


def test_whole_networks_fit_and_judge_the_prediction(tiny_profile: HardwareProfile) -> None:
    roles = [row.role for row in tiny_profile.networks]
    assert (roles.count("fit"), roles.count("held-out")) == (NUM_FIT, NUM_HELD_OUT)
    keys = set(tiny_profile.row_index)
    assert all(set(row.blocks) <= keys and row.latency_ms > 0 for row in tiny_profile.networks)
    precisions = {frozenset(p for _, p in row.blocks) for row in tiny_profile.networks if row.role == "held-out"}
    assert len(precisions) > 1
    assert tiny_profile.held_out["all"]["mape_pct"] < 100


def test_profile_survives_json(tiny_profile: HardwareProfile) -> None:
    assert HardwareProfile.from_json(json.loads(json.dumps(tiny_profile.to_json()))) == tiny_profile


@pytest.mark.parametrize("budget_s", [0, -1.5])
def test_budget_without_time_is_refused(budget_s: float) -> None:
    with pytest.raises(UserError, match=f"budget of {budget_s} s; profiling needs a positive number of seconds"):
        profile_device(tiny(), runtime=get_runtime("onnxruntime"), budget_s=budget_s)


class Scripted(Runtime):
    """Takes one millisecond of a clock for every run, and refuses models that hold `refuses`."""

    name, version, precisions = "scripted", "1", PRECISIONS

    def __init__(self, *, num_threads: int = 1, refuses: bytes | None = None) -> None:
        self.num_threads, self.refuses, self.now_s = num_threads, refuses, 0.0

    def __call__(self) -> float:
        return self.now_s

    def load(self, model: bytes | str | Path) -> Session:
        if self.refuses is not None and self.refuses in bytes(model):
            raise ProfileError("no such operator")
        return ScriptedSession(self)


class ScriptedSession(Session):
    def __init__(self, runtime: Scripted) -> None:
        self.runtime = runtime

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return []

    def runner(self, inputs: Mapping[str, np.ndarray]) -> Callable[[], object]:
        return lambda: None

    def sampler(self, inputs: Mapping[str, np.ndarray]) -> Sampler:
        def sample(num_loops: int) -> float:
            self.runtime.now_s += 1e-3 * (1 + num_loops)
            return 1e-3

        return sample


@pytest.fixture(scope="module")
def plan() -> ProfilePlan:
    return plan_profile(tiny(), PRECISIONS, num_fit=20, num_held_out=10)


def test_a_short_budget_measures_the_first_rows_and_ends_in_time(plan: ProfilePlan) -> None:
    runtime = Scripted()
    found = measure_plan(plan, runtime, budget_s=1.2, clock=runtime)
    measured = [stats is not None for stats in found.rows]
    assert measured == sorted(measured, reverse=True)
    assert 0 < sum(measured) < len(measured)
    assert 0 < sum(stats is not None for stats in found.networks) < len(found.networks)
    assert runtime.now_s < 1.3


def test_networks_that_there_is_no_time_for_are_not_made(plan: ProfilePlan) -> None:
    runtime, made = Scripted(), []

    def make(network: PlannedNetwork) -> onnx.ModelProto:
        made.append(network)
        return network.model

    networks = tuple(network._replace(make=partial(make, network)) for network in plan.networks)
    found = measure_plan(dataclasses.replace(plan, networks=networks), runtime, budget_s=1.2, clock=runtime)
    assert 0 < len(made) == sum(stats is not None for stats in found.networks) < len(networks)


def test_a_long_budget_measures_everything(plan: ProfilePlan) -> None:
    runtime = Scripted()
    found = measure_plan(plan, runtime, budget_s=20, clock=runtime)
    assert all(stats is not None and stats.latency_ms == pytest.approx(1) for stats in (*found.rows, *found.networks))
    assert 19 < runtime.now_s < 21


def test_a_precision_that_the_runtime_refuses_is_not_tried_again(plan: ProfilePlan) -> None:
    runtime = Scripted(refuses=b"MatMulNBits")
    found = measure_plan(plan, runtime, budget_s=20, clock=runtime)
    assert dict(found.refused) == {"w8": "no such operator", "w4": "no such operator"}
    for row, stats in zip(plan.rows, found.rows, strict=True):
        assert (stats is None) == (row.precision in ("w4", "w8"))


def test_a_runtime_without_fp32_is_refused(plan: ProfilePlan) -> None:
    runtime = Scripted(refuses=b"Identity")
    with pytest.raises(ProfileError, match="scripted 1 can't run fp32: no such operator"):
        measure_plan(plan, runtime, budget_s=20, clock=runtime)
