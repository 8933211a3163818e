"""Entropy and effectiveness against sums by hand, of blocks whose layers can be listed."""

import math

import pytest
import torch
from torch import nn

from predictors.entropy import LAST_STAGE_WEIGHT, effectiveness, entropy, entropy_weights, log_width, widths
from search_spaces.blocks import Block, Port
from search_spaces.hybrid import hybrid_tiny
from search_spaces.network import BlockSpec

SPACE = hybrid_tiny()
X = Port(shape=(8, 6, 6))


class TwoBranches(Block):
    """A 3x3 convolution beside two point-wise ones, and a convolution after their sum."""

    def __init__(self, reads: tuple[Port, ...]):
        super().__init__(reads)
        self.spatial = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.first, self.second = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.last = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return x_BCHW + self.last(self.spatial(x_BCHW) + self.second(self.first(x_BCHW)))

    def deploy(self) -> nn.Module:
        return self


@pytest.mark.parametrize(
    ("kind", "args", "expected"),
    [
        ("stem", {"channels": 16, "stride": 2}, (8 * 9, 8 * 9)),
        ("conv", {"kernel": 5}, (25, 8)),
        ("pooling", {}, ()),
        ("mlp", {"ratio": 3}, (8, 24)),
        ("gated_mlp", {"ratio": 2}, (8, 16)),
        ("attention", {"head_dim": 4, "reduction": 2}, (9, 8, 8)),
        ("linear_attention", {"head_dim": 4}, (9, 8, 8)),
        ("downsample", {"channels": 32}, (8 * 9,)),
        ("head", {"num_classes": 5}, (8,)),
        (f"{__name__}:TwoBranches", {}, (8, 4, 8 * 9)),
    ],
)
def test_widths_are_the_fan_ins_along_the_widest_path(kind: str, args: dict[str, int], expected: tuple) -> None:
    spec = BlockSpec(name="block", kind=kind, args=tuple(args.items()), reads=(X,))
    assert widths(spec) == expected
    assert log_width(spec) == pytest.approx(math.log(math.prod(expected)))


def test_entropy_and_effectiveness_of_the_smallest_network_are_those_by_hand() -> None:
    stages = [
        ((3 * 9, 8 * 9, 16, 32), 16 * 8 * 8),
        ((16 * 9, 32, 64), 32 * 4 * 4),
        ((32 * 9, 64, 128), 64 * 2 * 2),
    ]
    total, upto = 0.0, 0.0
    for (layers, output), weight in zip(stages, (1, 1, LAST_STAGE_WEIGHT), strict=True):
        upto += sum(math.log(width) for width in layers)
        total += weight * math.log(output) * upto
    specs = SPACE.blocks(SPACE.smallest())
    assert entropy(specs) == pytest.approx(total)
    assert effectiveness(specs) == pytest.approx(10 / math.exp(upto / 10))


def test_entropy_is_a_sum_over_blocks_that_residual_blocks_only_add_to() -> None:
    largest, specs = SPACE.largest().genotype, SPACE.blocks(SPACE.largest())
    weights = dict(zip((spec.name for spec in specs), entropy_weights(specs), strict=True))
    assert weights["head"] == 0
    shallow = SPACE.blocks(SPACE.architecture(largest | {"stage2.depth": 1}))
    removed = [spec for spec in specs if spec.name not in {other.name for other in shallow}]
    assert len(removed) == 4
    difference = sum(weights[spec.name] * log_width(spec) for spec in removed)
    assert entropy(specs) - entropy(shallow) == pytest.approx(difference)


def test_deeper_networks_of_equal_width_are_less_effective() -> None:
    largest = SPACE.largest().genotype
    deep, shallow = (effectiveness(SPACE.blocks(SPACE.architecture(largest | {"stage2.depth": d}))) for d in (3, 1))
    assert deep > shallow
