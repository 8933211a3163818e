"""A profile of what was measured, of what was not, and without what was refused."""

from dataclasses import replace

import pytest

from hardware_profiles.measure import LatencyStats
from hardware_profiles.profile import HardwareProfile
from nas.errors import UserError
from nas.profiling import Measurements, ProfilePlan, assemble_profile, plan_profile
from search_spaces.precision import PRECISIONS
from tests.hardware_profiles.profiles import DEVICE
from tests.tiny_space import tiny


def stats(latency_ms: float) -> LatencyStats:
    return LatencyStats(latency_ms=latency_ms, spread_pct=1.0, num_runs=10)


@pytest.fixture(scope="module")
def plan() -> ProfilePlan:
    return plan_profile(tiny(), PRECISIONS, num_fit=20, num_held_out=40)


@pytest.fixture(scope="module")
def found(plan: ProfilePlan) -> Measurements:
    """A device on which a block takes 10 us a kB of its file, and a network exactly what its blocks take."""
    times = {(row.key, row.precision): 1e-5 * row.size_bytes for row in plan.rows}
    return Measurements(
        device=DEVICE,
        runtime="onnxruntime",
        runtime_version="1.0",
        num_threads=1,
        weight_bits=7,
        call=stats(0.002),
        rows=tuple(stats(0.002 + row.num_copies * times[row.key, row.precision]) for row in plan.rows),
        networks=tuple(stats(0.002 + sum(times[pair] for pair in network.blocks)) for network in plan.networks),
        seconds=3.0,
    )


def test_rows_are_net_of_a_call_and_predict_the_networks(plan: ProfilePlan, found: Measurements) -> None:
    profile = assemble_profile(plan, found, name="here")
    assert [row.latency_ms for row in profile.rows] == pytest.approx([1e-5 * row.size_bytes for row in plan.rows])
    assert all(row.measured for row in profile.rows)
    assert (profile.name, profile.weight_bits, profile.space) == ("here", 7, plan.space)
    assert {group: round(values["mape_pct"], 6) for group, values in profile.held_out.items()} == {
        "fp32": 0, "mixed": 0, "all": 0,
    }  # fmt: skip


def test_rows_without_a_measurement_are_predicted_and_say_so(plan: ProfilePlan, found: Measurements) -> None:
    half = len(plan.rows) // 2
    profile = assemble_profile(plan, replace(found, rows=found.rows[:half] + (None,) * (len(plan.rows) - half)))
    assert [row.measured for row in profile.rows] == [index < half for index in range(len(plan.rows))]
    assert all(row.latency_ms > 0 and row.num_runs == 0 for row in profile.rows[half:])
    assert HardwareProfile.from_json(profile.to_json()) == profile


def test_a_refused_precision_is_left_out_everywhere(plan: ProfilePlan, found: Measurements) -> None:
    profile = assemble_profile(plan, replace(found, refused={"w4": "no MatMulNBits"}))
    assert "w4" not in profile.precisions
    assert not any(row.precision == "w4" for row in profile.rows)
    assert not any(precision == "w4" for network in profile.networks for _, precision in network.blocks)


def test_a_runtime_that_refuses_fp32_has_no_profile(plan: ProfilePlan, found: Measurements) -> None:
    with pytest.raises(UserError, match=r"refuses a model in fp32: out of memory"):
        assemble_profile(plan, replace(found, refused={"fp32": "out of memory"}))


def test_too_few_measured_blocks_are_refused(plan: ProfilePlan, found: Measurements) -> None:
    with pytest.raises(UserError, match="only 3 blocks were measured"):
        assemble_profile(plan, replace(found, rows=found.rows[:3] + (None,) * (len(plan.rows) - 3)))
