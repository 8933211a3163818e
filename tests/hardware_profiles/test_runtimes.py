"""The shipped runtimes keep the contract, and runtimes are found by name."""

import pytest

from hardware_profiles.errors import ProfileError
from hardware_profiles.runtimes import RUNTIMES, Runtime, get_runtime
from hardware_profiles.runtimes.onnxruntime_cpu import OnnxRuntime
from tests.hardware_profiles.runtime_contract import RuntimeContract


class TestOnnxRuntime(RuntimeContract):
    def make(self, *, num_threads: int = 1) -> Runtime:
        return OnnxRuntime(num_threads=num_threads)


@pytest.mark.parametrize("name", sorted(RUNTIMES.keys() - {"browser"}))  # test_browser.py has what that needs
def test_a_registered_runtime_is_found_by_its_own_name(name: str) -> None:
    runtime = get_runtime(name, num_threads=2)
    assert runtime.name == name
    assert runtime.num_threads == 2


def test_a_dotted_path_needs_no_registration() -> None:
    assert isinstance(get_runtime("hardware_profiles.runtimes.onnxruntime_cpu:OnnxRuntime"), OnnxRuntime)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("onnxruntme", r"unknown runtime 'onnxruntme'; available: .*\. Did you mean onnxruntime\?"),
        ("no_such_package:Runtime", "No module named"),
        ("hardware_profiles.runtimes:Missing", "no attribute 'Missing'"),
        ("hardware_profiles.errors:ProfileError", "isn't a Runtime"),
    ],
)
def test_what_is_no_runtime_is_refused(name: str, rule: str) -> None:
    with pytest.raises(ProfileError, match=rule):
        get_runtime(name)
