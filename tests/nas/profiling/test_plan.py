"""What a profile measures: every block in every precision, and networks that fit or judge."""

import math

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from hardware_profiles.loading import noise
from nas.profiling import ProfilePlan, num_rows, plan_profile
from nas.profiling.features import informative_order, predict_rows
from nas.profiling.plan import NUM_COPIES, model_input
from search_spaces.blocks import block_class
from search_spaces.cost import block_cost, network_cost
from search_spaces.precision import PRECISIONS
from tests.tiny_space import tiny


@pytest.fixture(scope="module")
def plan() -> ProfilePlan:
    return plan_profile(tiny(), PRECISIONS, num_fit=20, num_held_out=10)


def test_every_block_is_planned_in_every_precision_it_has(plan: ProfilePlan) -> None:
    wanted = {(s.cost_key, p) for s in tiny().block_specs() for p in block_class(s.kind).precisions}
    assert {(row.key, row.precision) for row in plan.rows} == wanted
    assert len(plan.rows) == len(wanted) == num_rows(tiny()) == len(plan.features_RF)


def test_what_a_call_costs_does_not_hold_the_data_of_a_block(plan: ProfilePlan) -> None:
    sizes = [math.prod(model_input(row.model)[1]) for row in plan.rows]
    assert math.prod(model_input(plan.empty)[1]) == 1 < min(sizes)


def test_signs_differ_by_channel_as_after_training(plan: ProfilePlan) -> None:
    for network in plan.networks[:3]:  # smallest, middle, largest in fp32
        model = network.model
        found = [node.input[0] for node in model.graph.node if node.op_type == "Relu"]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in found)
        name, shape = model_input(model)
        session = ort.InferenceSession(model.SerializeToString())
        for values in session.run(found, {name: noise(shape)}):
            channels_last = values.ndim == 3
            positive_C = (values > 0).mean(axis=(0, 1) if channels_last else (0, 2, 3))
            assert np.isfinite(values).all()
            assert positive_C.std() > 0.2


def test_only_precisions_of_the_runtime_are_planned() -> None:
    plan = plan_profile(tiny(), ("int8", "fp32", "unheard-of"), num_fit=8, num_held_out=2)
    assert plan.precisions == ("fp32", "int8")
    assert {row.precision for row in plan.rows} == {"fp32", "int8"}
    assert {precision for network in plan.networks for _, precision in network.blocks} == {"fp32", "int8"}


def test_networks_fit_first_and_then_take_turns(plan: ProfilePlan) -> None:
    roles = [network.role for network in plan.networks]
    assert (roles.count("fit"), roles.count("held-out")) == (20, 10)
    assert set(roles[: 3 * len(plan.precisions)]) == {"fit"}  # smallest, middle, largest in each precision
    assert roles[-2:].count("held-out") >= 1


def test_networks_differ_in_architecture_and_precisions(plan: ProfilePlan) -> None:
    held_out = [network.blocks for network in plan.networks if network.role == "held-out"]
    assert len({tuple(key for key, _ in blocks) for blocks in held_out}) > 5
    assert len({frozenset(precision for _, precision in blocks) for blocks in held_out}) > 2


def test_networks_reach_from_small_to_large() -> None:
    space = tiny()
    macs = {spec.cost_key: block_cost(spec).macs for spec in space.block_specs()}
    smallest, largest = (network_cost(space.blocks(a)).macs for a in (space.smallest(), space.largest()))
    found = [
        sum(macs[key] for key, _ in network.blocks)
        for network in plan_profile(space, PRECISIONS, num_fit=16, num_held_out=60).networks
        if network.role == "held-out"
    ]
    low, high = np.percentile(np.log(found), [10, 90])
    assert (high - low) / np.log(largest / smallest) > 0.6


def test_the_same_seed_plans_the_same_models(plan: ProfilePlan) -> None:
    again = plan_profile(tiny(), PRECISIONS, num_fit=20, num_held_out=10)
    assert [row.model.SerializeToString() for row in again.rows] == [row.model.SerializeToString() for row in plan.rows]
    assert [network.blocks for network in again.networks] == [network.blocks for network in plan.networks]


def test_a_row_is_timed_as_its_block_following_itself(plan: ProfilePlan) -> None:
    for row in plan.rows:
        keeps_its_shape = not row.key.startswith(("stem", "downsample", "head"))
        assert row.num_copies == (NUM_COPIES if keeps_its_shape else 1)
        onnx.checker.check_model(row.model, full_check=True)
        if row.precision == "fp32":
            y = x = noise(model_input(row.model)[1])
            for _ in range(row.num_copies):
                y = run(row.block, y)
            np.testing.assert_allclose(run(row.model, x), y, rtol=1e-4, atol=1e-4)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {model_input(model)[0]: x})[0])


def test_the_first_rows_cover_the_others_better_than_the_last(plan: ProfilePlan) -> None:
    features_RF = plan.features_RF / np.where(np.ptp(plan.features_RF, axis=0) > 0, plan.features_RF.std(axis=0), 1)

    def gap(chosen_CF: np.ndarray) -> float:
        return float(np.linalg.norm(features_RF[:, None] - chosen_CF[None], axis=2).min(axis=1).max())

    half = len(features_RF) // 2
    assert gap(features_RF[:half]) < gap(features_RF[half:])
    assert sorted(informative_order(plan.features_RF)) == list(range(len(plan.rows)))


def test_rows_not_measured_are_predicted_from_costs_like_theirs() -> None:
    rng = np.random.default_rng(0)
    features_RF = rng.uniform(5, 12, (200, 4))
    latency_ms_R = 1e-4 * np.exp(0.7 * features_RF[:, 0] + 0.2 * features_RF[:, 1])
    given_ms_R = np.where(np.arange(200) < 100, latency_ms_R, np.nan)
    predicted_ms_R = predict_rows(features_RF, given_ms_R)
    np.testing.assert_array_equal(predicted_ms_R[:100], latency_ms_R[:100])
    ratio_R = predicted_ms_R[100:] / latency_ms_R[100:]
    assert np.median(np.abs(np.log(ratio_R))) < 0.3
    assert np.corrcoef(predicted_ms_R[100:], latency_ms_R[100:])[0, 1] > 0.9


def test_too_few_measured_rows_predict_nothing() -> None:
    with pytest.raises(ValueError, match="7 measured rows say too little"):
        predict_rows(np.ones((20, 2)), np.where(np.arange(20) < 7, 1.0, np.nan))
