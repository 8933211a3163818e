"""A profile of the tiny space: complete, of use, and refused when it can't be."""

import json

import pytest

from hardware_profiles.profile import HardwareProfile
from hardware_profiles.runtimes import get_runtime
from nas.errors import UserError
from nas.profiling import num_rows, profile_device
from search_spaces.blocks import block_class
from tests.nas.conftest import NUM_FIT, NUM_HELD_OUT
from tests.tiny_space import tiny


def test_every_block_is_measured_in_every_precision_it_has(tiny_profile: HardwareProfile) -> None:
    wanted = {(s.cost_key, p) for s in tiny().block_specs() for p in block_class(s.kind).precisions}
    assert {(row.key, row.precision) for row in tiny_profile.rows} == wanted
    assert len(tiny_profile.rows) == len(wanted) == num_rows(tiny())
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
