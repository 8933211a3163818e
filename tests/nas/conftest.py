"""Shared by the tests of stages: a profile of the tiny space, measured in about four seconds."""

import pytest

from hardware_profiles.profile import HardwareProfile
from hardware_profiles.runtimes import get_runtime
from nas.profiling import profile_device
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
    )
