"""Shared by the tests of stages: a profile of the tiny space, measured in about a second."""

import pytest

from hardware_profiles.profile import HardwareProfile
from hardware_profiles.runtimes import get_runtime
from nas.profiling import profile_device
from tests.tiny_space import tiny


@pytest.fixture(scope="session")
def tiny_profile() -> HardwareProfile:
    return profile_device(tiny(), runtime=get_runtime("onnxruntime"), name="here", budget_s=1.0)
