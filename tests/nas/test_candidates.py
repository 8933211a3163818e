"""The search over a supernet: repeatable, priced by the profile, and clear about mistakes."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hardware_profiles.profile import HardwareProfile
from hardware_profiles.runtimes.onnx_runtime import OnnxRuntime
from nas.candidates import OBJECTIVES, CheapObjectives, check_profile, first_candidates, profile_blocks, run_search
from nas.data import ImageData
from nas.errors import UserError
from nas.evaluator import Evaluator, ScoresOf, target_evaluator
from nas.export import export_model
from nas.search import Study
from nas.search.pareto import on_front
from nas.sensitivity import allocate_policy, measure_sensitivity, policy_budgets
from nas.supernet import Supernet
from predictors.entropy import effectiveness, entropy
from predictors.latency import LatencyPredictor
from search_spaces import Architecture
from search_spaces.cost import network_cost
from search_spaces.precision import Candidate, CandidateSpace
from tests.hardware_profiles.profiles import make_space_profile
from tests.nas.quantized_networks import random_candidate
from tests.tiny_space import tiny

SPACE = tiny()
CANDIDATES = CandidateSpace(SPACE, precisions=OnnxRuntime.precisions)
SensitivityOf = Callable[[Architecture], pd.DataFrame]


@pytest.fixture(scope="module")
def supernet() -> Supernet:
    torch.manual_seed(0)
    return Supernet(SPACE)


def search(supernet: Supernet, data: ImageData, profile: HardwareProfile, **options) -> pd.DataFrame:
    settings = {"num_evaluations": 10, "searcher": "random", "num_images": 60} | options
    return run_search(supernet, data, profile, **settings)


def test_one_seed_gives_the_same_rows_twice(
    supernet: Supernet, tiny_data: ImageData, tiny_profile: HardwareProfile, tmp_path: Path
) -> None:
    options = {"seed": 3, "architecture": SPACE.middle()}
    one = search(supernet, tiny_data, tiny_profile, **options)
    assert list(one["state"]) == ["complete"] * 10
    stopped = search(supernet, tiny_data, tiny_profile, num_evaluations=9, study=tmp_path / "study.db", **options)
    two = search(supernet, tiny_data, tiny_profile, study=tmp_path / "study.db", **options)
    assert len(stopped) == 9
    untimed = [column for column in one if column not in ("seconds", "host")]
    pd.testing.assert_frame_equal(one[untimed], two[untimed], check_dtype=False)


def test_evaluation_survives_being_sent_to_another_process(
    supernet: Supernet, tiny_data: ImageData, tiny_profile: HardwareProfile
) -> None:
    ray_pickle = pytest.importorskip("ray.cloudpickle", reason="Ray is not installed; pip install 'hybridnas[ray]'")
    here = ScoresOf(supernet, tiny_data, tiny_profile, num_images=60, num_threads=1)
    here.fit_estimate()
    there = ray_pickle.loads(ray_pickle.dumps(here))
    genotype = here.candidates.genotype(here.candidates.uniform(SPACE.middle(), "int8"))
    assert there(genotype) == here(genotype)
    assert "estimated_error_pct" in here(genotype)


def test_columns_are_those_of_profile_and_cost(
    supernet: Supernet, tiny_data: ImageData, tiny_profile: HardwareProfile
) -> None:
    frame = search(supernet, tiny_data, tiny_profile, num_evaluations=5)
    predictor = LatencyPredictor.from_profile(tiny_profile)
    sizes = {(row.key, row.precision): row.size_bytes for row in tiny_profile.rows}
    names = [choice.name for choice in CANDIDATES.choices]
    for row in frame.to_dict("records"):
        candidate = CANDIDATES.candidate({name: row[name] for name in names})
        blocks = profile_blocks(SPACE, candidate)
        cost = network_cost(SPACE.blocks(candidate.architecture))
        assert row["latency_ms"] == pytest.approx(predictor.predict([blocks])[0])
        assert row["size_bytes"] == sum(sizes[block] for block in blocks)
        assert (row["macs"], row["params"]) == (cost.macs, cost.num_params)


def sensitivities(supernet: Supernet, data: ImageData, profile: HardwareProfile) -> SensitivityOf:
    """Tables of any architecture on a few images."""
    network_of = Evaluator(supernet, data).network
    return partial(measure_sensitivity, network_of, space=SPACE, profile=profile, data=data, num_images=32)


def test_first_candidates_hold_extremes_and_allocated_policies_and_fit_into_a_batch(
    supernet: Supernet, tiny_data: ImageData
) -> None:
    profile = make_space_profile(SPACE)
    cheap = CheapObjectives(CANDIDATES, profile)
    sensitivity_of = sensitivities(supernet, tiny_data, profile)
    first = first_candidates(cheap, sensitivity_of)
    assert len(set(first)) == len(first) <= 10
    for architecture in (SPACE.smallest(), SPACE.middle(), SPACE.largest()):
        table = sensitivity_of(architecture)
        (budget,) = policy_budgets(table, fractions=[0.5])
        policy = allocate_policy(SPACE.blocks(architecture), table, budget=budget)
        for candidate in (
            CANDIDATES.uniform(architecture),
            cheap.fastest(architecture),
            Candidate(architecture=architecture, policy=policy),
        ):
            assert candidate in first


def test_first_policies_of_a_fixed_architecture_span_its_latencies(supernet: Supernet, tiny_data: ImageData) -> None:
    largest, profile = SPACE.largest(), make_space_profile(SPACE)
    cheap = CheapObjectives(CandidateSpace(SPACE, fixed=largest, precisions=OnnxRuntime.precisions), profile)
    sensitivity_of = sensitivities(supernet, tiny_data, profile)
    first = first_candidates(cheap, sensitivity_of)
    assert len(set(first)) == len(first) <= 10
    assert {candidate.architecture for candidate in first} == {largest}
    uniform = {cheap.candidates.uniform(largest, precision) for precision in cheap.candidates.precisions}
    assert uniform | {cheap.fastest(largest)} < set(first)


def test_fastest_policy_beats_every_other_sum_of_blocks(tiny_profile: HardwareProfile) -> None:
    cheap = CheapObjectives(CANDIDATES, tiny_profile)

    def sum_ms(candidate) -> float:
        return sum(tiny_profile.latency_ms(*block) for block in profile_blocks(SPACE, candidate))

    best = sum_ms(cheap.fastest(SPACE.largest()))
    for seed in range(50):
        policy = random_candidate(SPACE, seed).policy
        genotype = CANDIDATES.genotype(CANDIDATES.uniform(SPACE.largest()))
        genotype |= {f"precision.{place}": p for place, p in policy.precisions}
        assert best <= sum_ms(CANDIDATES.candidate(genotype)) + 1e-12


def test_entropy_is_an_objective_to_maximise_and_effectiveness_a_limit(
    supernet: Supernet, tiny_data: ImageData, tiny_profile: HardwareProfile
) -> None:
    options = {"objectives": ("error_pct", "entropy"), "constraints": ("effectiveness<=0.2",)}
    frame = search(supernet, tiny_data, tiny_profile, searcher="predictor-guided", **options)
    assert (frame["effectiveness"] <= 0.2).any()
    front = frame[on_front(frame, [OBJECTIVES[name] for name in options["objectives"]])]
    assert frame["entropy"].max() in set(front["entropy"])
    row = frame.iloc[0]
    specs = SPACE.blocks(SPACE.architecture({choice.name: row[choice.name] for choice in SPACE.choices}))
    assert (row["entropy"], row["effectiveness"]) == (entropy(specs), effectiveness(specs))


def test_the_estimated_error_is_that_of_error_and_cross_entropy_beside_it(
    supernet: Supernet, tiny_data: ImageData, tiny_profile: HardwareProfile
) -> None:
    options = {"objectives": ("estimated_error_pct", "latency_ms"), "num_images": 40}
    frame = search(supernet, tiny_data, tiny_profile, num_evaluations=6, **options)
    evaluator, split = target_evaluator(supernet, tiny_data, tiny_profile), tiny_data.validation.spread(40)
    evaluate = ScoresOf(supernet, tiny_data, tiny_profile, num_images=40)
    evaluate.fit_estimate()
    assert evaluate.estimate.per_nat > 0
    for row in frame.to_dict("records"):
        candidate = CANDIDATES.candidate({choice.name: row[choice.name] for choice in CANDIDATES.choices})
        found = evaluator.score(candidate, split)
        assert row["cross_entropy"] == pytest.approx(found.cross_entropy, rel=1e-5)  # here with other threads
        assert row["error_pct"] == 100 - found.accuracy_pct
        estimated = evaluate.estimate(row["error_pct"], row["cross_entropy"])
        assert row["estimated_error_pct"] == pytest.approx(estimated, rel=1e-4)


def test_no_estimate_is_fitted_where_it_is_no_objective(
    supernet: Supernet, tiny_data: ImageData, tiny_profile: HardwareProfile
) -> None:
    frame = search(supernet, tiny_data, tiny_profile, num_evaluations=2, objectives=("error_pct", "latency_ms"))
    assert "estimated_error_pct" not in frame
    assert frame["cross_entropy"].notna().all()


def test_what_a_search_began_with_is_not_measured_again(
    supernet: Supernet,
    tiny_data: ImageData,
    tiny_profile: HardwareProfile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {"objectives": ("estimated_error_pct", "latency_ms"), "num_images": 40}
    whole = search(supernet, tiny_data, tiny_profile, num_evaluations=6, **options)
    options["study"] = tmp_path / "study.db"
    search(supernet, tiny_data, tiny_profile, num_evaluations=3, **options)
    with monkeypatch.context() as patch:
        patch.setattr(ScoresOf, "fit_estimate", None)
        patch.setattr("nas.candidates.measure_sensitivity", None)
        continued = search(supernet, tiny_data, tiny_profile, num_evaluations=6, **options)
    columns = [name for name in whole if name not in ("seconds", "host")]
    pd.testing.assert_frame_equal(continued[columns], whole[columns])
    other = Supernet(supernet.space)
    with pytest.raises(UserError, match=r"other settings: supernet \"\w+\", now"):
        search(other, tiny_data, tiny_profile, num_evaluations=6, **options)


def test_a_study_that_keeps_no_estimate_goes_on(
    supernet: Supernet, tiny_data: ImageData, tiny_profile: HardwareProfile, tmp_path: Path
) -> None:
    options = {"objectives": ("estimated_error_pct", "latency_ms"), "num_images": 40, "study": tmp_path / "study.db"}
    begun = search(supernet, tiny_data, tiny_profile, num_evaluations=3, **options)
    study = Study.load(tmp_path / "study.db")
    earlier = {name: value for name, value in study.settings.items() if name != "estimate"}
    study._study.set_user_attr("settings", earlier)
    continued = search(supernet, tiny_data, tiny_profile, num_evaluations=4, **options)
    pd.testing.assert_frame_equal(continued[:3], begun)


def test_no_genotypes_cost_nothing(tiny_profile: HardwareProfile) -> None:
    columns = CheapObjectives(CANDIDATES, tiny_profile)([])
    assert {name: len(column) for name, column in columns.items()} == dict.fromkeys(
        ("latency_ms", "size_bytes", "macs", "params", "entropy", "effectiveness"), 0
    )


def test_fixed_architecture_searches_policies_alone(
    supernet: Supernet, tiny_data: ImageData, tiny_profile: HardwareProfile
) -> None:
    frame = search(supernet, tiny_data, tiny_profile, architecture=SPACE.largest(), num_evaluations=6)
    assert frame["macs"].nunique() == 1
    assert frame["size_bytes"].nunique() > 1
    assert not any(column.endswith(".width") for column in frame)


def test_evaluator_uses_one_deployment_for_all_policies(supernet: Supernet, tiny_data: ImageData) -> None:
    evaluator = Evaluator(supernet, tiny_data)
    largest = SPACE.largest()
    network, _ = evaluator.deployed(largest)
    errors = [evaluator.error_pct(CANDIDATES.uniform(largest, p), tiny_data.validation) for p in ("fp32", "int8")]
    assert evaluator.deployed(largest)[0] is network
    again = evaluator.error_pct(CANDIDATES.uniform(largest), tiny_data.validation)
    assert errors[0] == again
    assert all(0 <= error <= 100 for error in errors)
    assert np.isfinite(errors).all()


def test_mistakes_are_named_in_one_line(
    supernet: Supernet, tiny_data: ImageData, tiny_profile: HardwareProfile
) -> None:
    with pytest.raises(UserError, match="unknown objective 'latencyms'; available: .*Did you mean latency_ms?"):
        search(supernet, tiny_data, tiny_profile, objectives=("error_pct", "latencyms"))
    other = dataclasses.replace(tiny_profile, space_fingerprint="0123")
    with pytest.raises(
        UserError, match="profile 'here' measured 'tiny' 0123, not 'tiny' .*with `nas profile`"
    ) as error:
        search(supernet, tiny_data, other)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="latency_ms<=1e-09"):
        search(supernet, tiny_data, tiny_profile, constraints=("latency_ms<=1e-9",))
    check_profile(tiny_profile, SPACE)


def test_ranges_found_in_another_way_are_another_study(
    supernet: Supernet, tiny_data: ImageData, tiny_profile: HardwareProfile, tmp_path: Path
) -> None:
    options = {"architecture": SPACE.smallest(), "study": tmp_path / "study.db"}
    search(supernet, tiny_data, tiny_profile, num_evaluations=1, **options)
    with pytest.raises(UserError, match="calibration"):
        search(supernet, tiny_data, tiny_profile, num_evaluations=2, calibration="percentile", **options)
    with pytest.raises(UserError, match="unknown calibration 'kl'; available: entropy, min-max, percentile"):
        search(supernet, tiny_data, tiny_profile, calibration="kl")


def test_weights_that_are_not_finite_stop_a_search(tiny_data: ImageData, tiny_profile: HardwareProfile) -> None:
    broken = Supernet(SPACE)
    broken.flat.fill_(float("nan"))
    with pytest.raises(UserError, match="block 'stem'.*train the supernet again"):
        search(broken, tiny_data, tiny_profile)


def test_operators_that_give_only_zeros_fail_static_int8_and_nothing_else(
    tiny_data: ImageData, tiny_profile: HardwareProfile
) -> None:
    silent = Supernet(SPACE)
    silent.flat.zero_()
    frame = search(silent, tiny_data, tiny_profile, architecture=SPACE.smallest(), num_evaluations=5)
    static = (frame.filter(like="precision.") == "int8").any(axis=1)
    assert static.any()
    assert list(frame["state"]) == ["failed" if has_int8 else "complete" for has_int8 in static]
    assert frame["reason"][static].str.contains("block 'stem' was always zero during calibration").all()


def test_a_batch_larger_than_the_training_split_is_refused(
    supernet: Supernet, tiny_data: ImageData, tiny_profile: HardwareProfile
) -> None:
    wide = dataclasses.replace(tiny_profile, batch_size=1000)
    with pytest.raises(UserError, match="calibration with 480 images, but the target's batch has 1000"):
        search(supernet, tiny_data, wide, num_evaluations=1)


def test_a_precision_that_the_target_lacks_is_refused_and_nothing_is_written(
    supernet: Supernet, tiny_data: ImageData, tmp_path: Path
) -> None:
    evaluator = Evaluator(supernet, tiny_data, precisions=("fp32", "w8"))
    candidate = CANDIDATES.uniform(SPACE.smallest(), "w4")
    message = "block '.*' is w4, which the target lacks; it has fp32, w8"
    with pytest.raises(UserError, match=message):
        evaluator.network(candidate)
    with pytest.raises(UserError, match=message):
        export_model(evaluator, candidate, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
    evaluator.network(CANDIDATES.uniform(SPACE.smallest(), "w8"))
