"""The bits of int8 weights are those that a runtime's own results show to be exact."""

import numpy as np
import pytest

from hardware_profiles.runtimes import Runtime, get_runtime
from nas.errors import UserError
from nas.saturation import find_weight_bits
from tests.nas.saturating_runtime import BrokenRuntime, NumpyRuntime, PairSums, SaturatingRuntime


class WithoutInt8(BrokenRuntime):
    precisions = ("fp32", "w8")


class SaturatingDynamically(NumpyRuntime):
    """Only the kernels of run-time ranges saturate."""

    def load(self, model):
        return (SaturatingRuntime() if b"MatMulInteger" in model else NumpyRuntime()).load(model)


def test_pairs_of_the_largest_8_bit_products_saturate_and_of_7_bit_ones_do_not() -> None:
    a_MK = np.full((1, 4), 255)
    for level, kept in ((127, 2 * 32767), (64, 4 * 255 * 64)):
        assert PairSums(32767)(a_MK, np.full((4, 1), level))[0, 0] == kept


@pytest.mark.parametrize(
    ("runtime", "bits"), [(NumpyRuntime, 8), (SaturatingRuntime, 7), (SaturatingDynamically, 7), (WithoutInt8, 8)]
)
def test_weights_have_as_many_bits_as_are_computed_exactly(runtime: type[Runtime], bits: int) -> None:
    assert find_weight_bits(runtime()) == bits


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_shipped_runtimes_are_exact_here_with_8_or_7_bits(name: str) -> None:
    assert find_weight_bits(get_runtime(name)) in (7, 8)


def test_a_runtime_that_is_never_exact_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="runtime 'numpy' 1 computes int8 wrongly here.*take int8 out") as caught:
        find_weight_bits(BrokenRuntime())
    assert "\n" not in str(caught.value)
