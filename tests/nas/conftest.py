"""Shared by the tests of stages: a profile of the tiny space, measured in about four seconds, and a bundle of it."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hardware_profiles.profile import HardwareProfile
from hardware_profiles.runtimes import get_runtime
from hardware_profiles.runtimes.onnx_runtime import OnnxRuntime
from nas.profiling import ProfilePlan, plan_profile, profile_device
from nas.profiling.bundle import write_profile_bundle
from nas.profiling.forms import unmeasured_convolutions
from tests.nas.bundle_devices import run
from tests.tiny_space import tiny

NUM_FIT, NUM_HELD_OUT = 18, 9


@pytest.fixture(scope="session")
def tiny_profile() -> HardwareProfile:
    return profile_device(
        tiny(),
        runtime=get_runtime("onnxruntime"),
        name="here",
        budget_s=4.0,
        num_fit=NUM_FIT,
        num_held_out=NUM_HELD_OUT,
        clock=time.process_time,  # a busy machine has less time, not fewer rows
    )


@pytest.fixture(scope="session")
def bundle_plan() -> ProfilePlan:
    return plan_profile(
        tiny(), OnnxRuntime.precisions, convolutions=unmeasured_convolutions(tiny()), num_fit=16, num_held_out=6
    )


@pytest.fixture(scope="session")
def made_bundle(bundle_plan: ProfilePlan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    write_profile_bundle(bundle_plan, folder, budget_s=2.0)
    return folder


@pytest.fixture(scope="session")
def made_result(made_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result.json, by a script that finds numpy and onnxruntime alone."""
    folder = tmp_path_factory.mktemp("device")
    shutil.copytree(made_bundle, folder / "tiny")
    status, text = run(folder / "tiny", imports=tmp_path_factory.mktemp("imports"))
    assert status == 0, text
    return folder / "tiny" / "result.json"


@pytest.fixture
def fresh_bundle(made_bundle: Path, tmp_path: Path) -> Path:
    """A copy on which nothing was measured."""
    return Path(shutil.copytree(made_bundle, tmp_path / "tiny"))


@pytest.fixture
def altered_result(made_result: Path, tmp_path: Path) -> Callable[[Callable[[str], str]], Path]:
    """Gives a copy of the result whose text went through a function."""

    def alter(change: Callable[[str], str]) -> Path:
        path = tmp_path / "result.json"
        path.write_text(change(made_result.read_text()))
        return path

    return alter
