"""A front's files measured where this project isn't installed."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from hardware_profiles.device import describe_device
from hardware_profiles.profile import HardwareProfile
from hardware_profiles.runtimes import get_runtime
from hardware_profiles.sealed import RESULT, read_sealed, write_sealed
from nas.errors import UserError
from nas.evaluation import normalize
from nas.front_bundle import import_front, limited, write_front_bundle
from nas.profiling import plan_profile
from nas.profiling.bundle import import_profile
from nas.profiling.plan import model_input
from tests.hardware_profiles.profiles import make_profile
from tests.nas.bundle_devices import run
from tests.tiny_data import load
from tests.tiny_space import tiny

DATA = load()
BATCH, NUM_IMAGES = 7, 50
"""No number of images is a multiple of the batch."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two exported networks: indices 3 and 8."""
    folder = tmp_path_factory.mktemp("front")
    plan = plan_profile(tiny(), ("fp32", "int8"), batch_size=BATCH, num_fit=6, num_held_out=0)
    for index, network in ((3, plan.networks[1]), (8, plan.networks[4])):
        (folder / str(index)).mkdir()
        onnx.save(network.model, folder / str(index) / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def profile() -> HardwareProfile:
    """Of this machine, as the models need it."""
    return replace(make_profile(), device=describe_device(), runtime_device="CPU", batch_size=BATCH, num_threads=1)


@pytest.fixture(scope="module")
def result(models: Path, profile: HardwareProfile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = tmp_path_factory.mktemp("bundle") / "front"
    write_front_bundle(bundle, models, [3, 8], DATA, profile, num_images=NUM_IMAGES)
    status, text = run(bundle, "--budget", "0.5", imports=tmp_path_factory.mktemp("imports"))
    assert status == 0, text
    return bundle / "result.json"


def test_classes_are_those_that_the_files_give_here(result: Path, models: Path, profile: HardwareProfile) -> None:
    found, target, seen = import_front(result, models, DATA, profile)
    assert list(found) == [3, 8]
    assert (len(seen.validation), len(seen.test), target["batch_size"]) == (NUM_IMAGES, NUM_IMAGES, BATCH)
    for index, measured in found.items():
        path = models / str(index) / "model.onnx"
        session, name = get_runtime("onnxruntime").load(path), model_input(onnx.load(path))[0]
        for split, classes in ((seen.validation, measured.validation), (seen.test, measured.test)):
            x_BCHW = normalize(split.images_BCHW, DATA).contiguous().numpy()
            x_BCHW = np.concatenate([x_BCHW, np.repeat(x_BCHW[-1:], -len(x_BCHW) % BATCH, axis=0)])
            expected = [session.run({name: part})[0].argmax(axis=1) for part in x_BCHW.reshape(-1, BATCH, 1, 32, 32)]
            np.testing.assert_array_equal(classes, np.concatenate(expected)[: len(classes)])
        assert measured.latency.latency_ms > 0


def test_images_are_spread_and_all_of_them_without_a_limit() -> None:
    assert limited(DATA, None) is DATA
    assert len(limited(DATA, 10).test) == 10
    assert limited(DATA, 10).train is DATA.train


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"num_threads": 4}, "measured with number of threads 1, the run is for 4"), ({}, "isn't the model that")],
)
def test_results_of_another_target_or_other_files_are_refused(
    changed: dict[str, int], message: str, result: Path, models: Path, profile: HardwareProfile, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        import_front(result, models if changed else tmp_path, DATA, replace(profile, **changed))


def test_results_on_other_images_or_for_another_verb_are_refused(
    result: Path, models: Path, profile: HardwareProfile
) -> None:
    with pytest.raises(UserError, match="measured with data set"):
        import_front(result, models, load(seed=1), profile)
    with pytest.raises(UserError, match="was measured for `nas verify`, not `nas profile`; import it there"):
        import_profile(result, tiny())


def test_a_model_without_a_time_is_refused(
    result: Path, models: Path, profile: HardwareProfile, tmp_path: Path
) -> None:
    content = read_sealed(result, RESULT, way_out="")
    rounds = [seconds[:-1] for seconds in content["rounds"]]
    shorter = {**content, "timed": [0], "loops": content["loops"][:-1], "rounds": rounds}
    write_sealed(tmp_path / "result.json", RESULT, json.loads(json.dumps(shorter)))
    with pytest.raises(UserError, match="has no time for model 8"):
        import_front(tmp_path / "result.json", models, DATA, profile)


def test_a_profile_of_another_runtime_has_no_bundle(models: Path, profile: HardwareProfile, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the profile is of openvino; a bundle's script runs onnxruntime only"):
        write_front_bundle(tmp_path / "front", models, [3], DATA, replace(profile, runtime="openvino"))
