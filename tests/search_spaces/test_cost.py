"""Multiply-accumulates against formulas, block kind by block kind."""

import dataclasses

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn
from torch.nn import functional as F

from search_spaces import SpaceError
from search_spaces.cost import block_cost, count_macs, network_cost
from tests.search_spaces.block_cases import CASES, C, H

T = H * H
MACS = {
    "pooling": 9 * C * T,
    "conv3": 9 * C * T + C * C * T,
    "conv5": 25 * C * T + C * C * T,
    "attention": 9 * C * T + (1 + 2 + 1) * C * C * T + 2 * T * T * C,
    "attention of averages": 9 * C * T + (1 + 1) * C * C * T + 2 * C * C * (T // 4) + 2 * T * (T // 4) * C,
    # queries, keys and values, projection; context, products with it and with the sum of keys
    "linear attention": 9 * C * T + 4 * C * C * T + C * 16 * T + C * 16 * T + C * T,
    "mlp": 2 * 3 * C * C * T,
    "gated mlp": (2 * 2 + 2) * C * C * T,
    "stem, stride 1": 9 * 3 * 8 * 15 * 15 + 9 * 8 * 16 * 15 * 15,
    "stem, stride 2": 9 * 3 * 8 * 15 * 15 + 9 * 8 * 16 * 8 * 8,
    "downsample": 9 * C * 48 * 4 * 4,
    "downsample, odd": 9 * C * 48 * 4 * 4,
    "head": C * 10,
}
NUM_PARAMS = {
    "pooling": 9 * C + C,
    "conv3": 9 * C + C + C * C + C,
    "attention": 9 * C + C + 4 * (C * C + C),
    "linear attention": 9 * C + C + 4 * (C * C + C),
    "mlp": C * 3 * C + 3 * C + 3 * C * C + C,
    "gated mlp": C * 4 * C + 4 * C + 2 * C * C + C,
    "head": C * 10 + 10,
}


class SelfAttention(nn.Module):
    def forward(self, x_BNTD: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(x_BNTD, x_BNTD, x_BNTD)


class Spectrum(nn.Module):
    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return torch.fft.fft2(x_BCHW)


@pytest.mark.parametrize("case", CASES)
def test_multiply_accumulates_equal_the_formula(case: str) -> None:
    assert block_cost(CASES[case]).macs == MACS[case]


@pytest.mark.parametrize("case", NUM_PARAMS)
def test_parameters_are_those_of_the_deployed_form(case: str) -> None:
    assert block_cost(CASES[case]).num_params == NUM_PARAMS[case]


def test_attention_that_fvcore_misses_is_counted() -> None:
    x_BNTD = torch.zeros(1, 2, 5, 8)
    plain = FlopCountAnalysis(SelfAttention(), x_BNTD).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    assert plain.total() == 0
    assert count_macs(SelfAttention(), (x_BNTD,)) == 2 * (2 * 5 * 5 * 8)


def test_operator_of_unknown_cost_is_refused() -> None:
    with pytest.raises(SpaceError, match="the cost of operator 'aten::fft_fft2' is unknown; add it"):
        count_macs(Spectrum(), (torch.zeros(1, 3, 8, 8),))


def test_network_adds_up_its_blocks_and_counts_shared_weights_once() -> None:
    first, other = CASES["mlp"], dataclasses.replace(CASES["conv3"], name="b", weight_key="")
    again = dataclasses.replace(first, name="c")
    cost, mlp, conv = network_cost([first, other, again]), block_cost(first), block_cost(other)
    assert again.weight_key == first.weight_key
    assert cost.macs == 2 * mlp.macs + conv.macs
    assert cost.num_params == mlp.num_params + conv.num_params
    assert cost.peak_activation_bytes == max(mlp.peak_activation_bytes, conv.peak_activation_bytes)


def test_peak_memory_holds_the_stream_beside_a_layers_input_and_output() -> None:
    hidden = 3 * C * T
    assert block_cost(CASES["mlp"]).peak_activation_bytes == 4 * (C * T + hidden + hidden)
