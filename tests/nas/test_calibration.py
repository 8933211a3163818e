"""Ranges of activations: what each method keeps, and what can't be calibrated."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import nn

from nas.calibration import CALIBRATIONS, PERCENTILE, calibrate, entropy_threshold, operators, percentile_threshold
from nas.config import CALIBRATIONS as NAMES
from nas.errors import UserError
from tests.nas.quantized_networks import deployed
from tests.search_spaces.block_cases import CASES
from tests.tiny_space import tiny

SPACE = tiny()
SPECS = SPACE.blocks(SPACE.largest())


@torch.no_grad()
def test_calibrated_ranges_hold_zero_and_the_extremes() -> None:
    network, ranges, x_BCHW = deployed(SPECS)
    stem = next(iter(ranges["stem"].values()))
    assert (stem.input_low, stem.input_high) == (float(x_BCHW.min()), float(x_BCHW.max()))
    assert stem.output_low == 0  # what leaves the ReLU
    for block, spec in zip(network.blocks, network.specs, strict=True):
        assert set(ranges[spec.name]) == set(operators(block))
        for found in ranges[spec.name].values():
            assert found.input_low <= 0 <= found.input_high
            assert found.output_low <= 0 <= found.output_high


@torch.no_grad()
@pytest.mark.parametrize("method", CALIBRATIONS)
def test_every_method_runs_each_block_once_and_stays_within_what_was_seen(method: str) -> None:
    network, extremes, x_BCHW = deployed(SPECS)
    calls: list[nn.Module] = []
    for block in network.blocks:
        block.register_forward_hook(lambda module, inputs, output: calls.append(module))
    ranges = calibrate(network, x_BCHW, method=method)
    assert calls == list(network.blocks)
    for name, found in ranges.items():
        for path, narrow in found.items():
            wide = extremes[name][path]
            assert wide.input_low <= narrow.input_low <= 0 <= narrow.input_high <= wide.input_high
            assert wide.output_low <= narrow.output_low <= 0 <= narrow.output_high <= wide.output_high


def test_methods_that_clip_give_other_ranges_than_the_extremes() -> None:
    network, extremes, x_BCHW = deployed(SPECS)
    found = [calibrate(network, x_BCHW, method=method) for method in CALIBRATIONS]
    assert found[0] == extremes
    assert found[1] != extremes
    assert found[2] not in (extremes, found[1])


def test_percentile_is_numpys_of_the_absolute_values() -> None:
    values = torch.randn(200_001, generator=torch.Generator().manual_seed(0))
    expected = np.percentile(values.abs().numpy(), PERCENTILE)
    assert percentile_threshold(values) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("threshold", [percentile_threshold, entropy_threshold])
def test_a_lonely_outlier_is_clipped(threshold: Callable[[torch.Tensor], float]) -> None:
    values = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    values[7] = -100.0
    assert 3 < threshold(values) < 20
    assert threshold(values * 5) == pytest.approx(5 * threshold(values), rel=1e-3)


def test_entropy_threshold_is_the_best_of_all_by_a_slow_reference() -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.empty(20_000).exponential_(generator=generator) * torch.randn(20_000, generator=generator).sign()
    largest = float(values.abs().max())
    counts = np.histogram(values.abs().numpy(), bins=2048, range=(0, largest))[0].astype(float)
    counts[0] = counts[1]
    divergence = {}
    for end in range(128, 2049, 16):
        clipped = np.array([*counts[: end - 1], counts[end - 1 :].sum()])
        expanded = np.zeros(end)
        for level in range(128):
            members = [i for i in range(end) if i * 128 // end == level and counts[i] > 0]
            for i in members:
                expanded[i] = sum(counts[j] for j in members) / len(members)
        divergence[end] = entropy(clipped + 1e-4, expanded + 1e-4)
    best = min(divergence, key=lambda end: divergence[end])
    assert best < 2048
    assert entropy_threshold(values) == pytest.approx(largest * best / 2048)


@pytest.mark.parametrize("threshold", [percentile_threshold, entropy_threshold])
def test_constants_keep_their_value(threshold: Callable[[torch.Tensor], float]) -> None:
    assert threshold(torch.zeros(100)) == 0
    assert threshold(torch.full((100,), -3.0)) == pytest.approx(3.0)


def test_what_cannot_be_calibrated_is_refused() -> None:
    network, _, x_BCHW = deployed(SPECS)
    with pytest.raises(UserError, match="not finite at operator '0' of block 'stem'; train the supernet again"):
        calibrate(network, x_BCHW * float("nan"))
    shared = nn.Linear(32, 32)
    twice = deployed((CASES["head"],))[0]
    twice.blocks[0] = nn.Sequential(nn.Flatten(), nn.Linear(32 * 64, 32), shared, nn.ReLU(), shared)
    with pytest.raises(UserError, match="operator '2' of block 'a' runs twice.*keep the block in fp32"):
        calibrate(twice, torch.randn(2, 32, 8, 8))
    with pytest.raises(UserError, match="calibration with 8 images, but the target's batch has 16; give more"):
        calibrate(network, x_BCHW, batch_size=16)
    with pytest.raises(UserError, match="unknown calibration 'minmax'; available.*Did you mean min-max?"):
        calibrate(network, x_BCHW, method="minmax")


def test_hooks_do_not_outlive_a_failed_calibration() -> None:
    network, extremes, x_BCHW = deployed(SPECS)
    with pytest.raises(UserError):
        calibrate(network, x_BCHW * float("nan"))
    assert calibrate(network, x_BCHW) == extremes


def test_options_name_the_methods_that_there_are() -> None:
    assert tuple(CALIBRATIONS) == NAMES
