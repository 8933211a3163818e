"""A profile's models are measured where its device and its runtime are, and nowhere else."""

from dataclasses import replace

import pytest

from hardware_profiles.device import describe_device
from hardware_profiles.profile import HardwareProfile
from nas.target import OtherTargetError, name_target, target_runtime
from tests.hardware_profiles.profiles import make_profile


@pytest.fixture
def here() -> HardwareProfile:
    """A profile of this machine."""
    return replace(make_profile(), device=describe_device(), num_threads=2, runtime_device="CPU")


def test_the_runtime_of_a_profile_of_this_machine_has_its_threads_and_device(here: HardwareProfile) -> None:
    runtime = target_runtime(here)
    assert (runtime.name, runtime.num_threads, runtime.device) == ("onnxruntime", 2, "CPU")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"device": make_profile().device}, "the profile is of Test CPU, this machine is "),
        ({"device": replace(describe_device(), flags=("made up",))}, "the profile is of .*, this machine is "),
        ({"runtime": "no_such_package:Runtime"}, "can't be imported .*No module named 'no_such_package'"),
        ({"runtime_device": "abacus"}, "unknown execution provider 'abacus'"),
        ({"precisions": ("fp32", "int8", "int1")}, "lacks int1 of profile"),
    ],
)
def test_another_machine_or_runtime_is_told_in_one_line(
    here: HardwareProfile, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(OtherTargetError, match=reason) as caught:
        target_runtime(replace(here, **changes))
    assert "\n" not in str(caught.value)


def test_a_target_is_named_by_processor_runtime_and_what_is_not_the_processor(here: HardwareProfile) -> None:
    profile = replace(here, device=make_profile().device)
    assert name_target(profile) == "Test CPU with onnxruntime 1.0"
    assert name_target(replace(profile, runtime_device="CUDA")) == "Test CPU with onnxruntime 1.0 on CUDA"
