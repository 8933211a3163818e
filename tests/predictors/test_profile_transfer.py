"""Transfer of profiles, between made-up devices whose true rows are known."""

import re
from dataclasses import replace

import numpy as np
import pytest

from hardware_profiles.errors import ProfileError
from hardware_profiles.profile import BlockRow, HardwareProfile, NetworkRow
from hardware_profiles.rows import Blocks
from predictors.metrics import prediction_metrics
from predictors.profile_transfer import select_networks, transferred_rows
from tests.hardware_profiles.profiles import make_profile

KINDS, PRECISIONS = ("conv", "attention", "mlp"), ("fp32", "int8")
PAIRS = [(f"{kind} size={size}", precision) for kind in KINDS for size in range(6) for precision in PRECISIONS]


def sample_networks(rng: np.random.Generator, num: int) -> list[Blocks]:
    return [tuple(PAIRS[index] for index in rng.integers(len(PAIRS), size=rng.integers(5, 20))) for _ in range(num)]


def true_ms(profile: HardwareProfile, network: Blocks) -> float:
    return profile.call_overhead_ms + sum(profile.latency_ms(*pair) for pair in network)


def measured_on(
    profile: HardwareProfile, networks: list[Blocks], rng: np.random.Generator, noise: float = 0.02
) -> tuple[NetworkRow, ...]:
    return tuple(
        NetworkRow(
            blocks=network,
            latency_ms=true_ms(profile, network) * (1 + noise * rng.standard_normal()),
            spread_pct=1.0,
            role="fit",
        )
        for network in networks
    )


def make_sources(rng: np.random.Generator, num: int = 3) -> list[HardwareProfile]:
    """Devices that agree on blocks but for noise, and have their own factors for kinds, precisions and all."""
    size = rng.uniform(0.1, 1.0, size=len(PAIRS))
    sources = []
    for index in range(num):
        of_kind, of_precision = dict(zip(KINDS, rng.uniform(0.5, 2, 3), strict=True)), {"fp32": 1.0}
        of_precision["int8"] = rng.uniform(0.4, 1.2)
        costs = {
            pair: float(size[row] * of_kind[pair[0].split()[0]] * of_precision[pair[1]] * rng.uniform(0.9, 1.1))
            for row, pair in enumerate(PAIRS)
        }
        profile = make_profile(name=f"device-{index}", latency_ms=costs, call_overhead_ms=0.05)
        sources.append(replace(profile, networks=measured_on(profile, sample_networks(rng, 40), rng)))
    return sources


def mixture(sources: list[HardwareProfile], shares: list[float]) -> HardwareProfile:
    costs = {
        pair: sum(share * source.latency_ms(*pair) for share, source in zip(shares, sources, strict=True))
        for pair in PAIRS
    }
    return make_profile(latency_ms=costs, call_overhead_ms=0.02)


@pytest.mark.parametrize("shares", [[3.0, 0.0], [0.2, 0.7]])
def test_rows_of_a_mixture_of_two_devices_are_found(shares: list[float]) -> None:
    rng = np.random.default_rng(0)
    sources = make_sources(rng, 2)
    device = mixture(sources, shares)
    found = transferred_rows(sources, measured_on(device, sample_networks(rng, 20), rng))
    metrics = prediction_metrics(
        [device.latency_ms(row.key, row.precision) for row in found.rows], [row.latency_ms for row in found.rows]
    )
    assert metrics["mape_pct"] < 8
    assert metrics["spearman"] > 0.98


def test_a_device_of_its_own_is_predicted_better_than_by_scaling_the_mean_of_the_sources() -> None:
    ours, scaled = [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        *sources, device = make_sources(rng, 5)
        networks = sample_networks(rng, 120)
        found = transferred_rows(sources, measured_on(device, networks[:20], rng))
        predicted = replace(sources[0], call_overhead_ms=found.call_overhead_ms, rows=found.rows, networks=())
        truth = np.array([true_ms(device, network) for network in networks])
        mean = np.mean(
            [[true_ms(s, n) for n in networks] / np.mean([true_ms(s, n) for n in networks]) for s in sources], 0
        )
        mean = mean * truth[:20].mean() / mean[:20].mean()
        ours.append(np.abs([true_ms(predicted, n) for n in networks[20:]] / truth[20:] - 1).mean())
        scaled.append(np.abs(mean[20:] / truth[20:] - 1).mean())
    assert np.mean(ours) < 0.7 * np.mean(scaled)


def test_rows_say_that_they_are_predicted() -> None:
    rng = np.random.default_rng(0)
    sources = make_sources(rng)
    found = transferred_rows(sources, measured_on(sources[0], sample_networks(rng, 10), rng))
    assert {(row.key, row.precision) for row in found.rows} == set(PAIRS)
    assert not any(row.measured for row in found.rows)
    assert all(row.latency_ms > 0 and row.num_runs == 0 for row in found.rows)


def test_blocks_that_a_source_lacks_get_no_row() -> None:
    rng = np.random.default_rng(0)
    first, second = make_sources(rng, 2)
    second = replace(second, rows=tuple(row for row in second.rows if row.precision == "fp32"))
    fp32 = [tuple((key, "fp32") for key, _ in network) for network in sample_networks(rng, 50)]
    second = replace(second, networks=measured_on(first, fp32[:20], rng))
    first = replace(first, networks=measured_on(first, fp32[20:40], rng))
    found = transferred_rows([first, second], measured_on(first, fp32[40:], rng))
    assert {row.precision for row in found.rows} == {"fp32"}


def test_selected_networks_are_distinct() -> None:
    rng = np.random.default_rng(0)
    chosen = select_networks(make_sources(rng), sample_networks(rng, 60), 15)
    assert len(set(chosen)) == 15
    assert set(chosen) <= set(range(60))


def test_sources_that_do_not_belong_together_are_refused() -> None:
    rng = np.random.default_rng(0)
    first, second = make_sources(rng, 2)
    networks = measured_on(first, sample_networks(rng, 10), rng)
    other = BlockRow(key="z", precision="fp32", latency_ms=1.0, spread_pct=1.0, num_runs=1)
    for sources, message in [
        ([], "no profile to transfer from is given; name one or more"),
        ([first, replace(second, space_fingerprint="f")], "profiles 'device-0', 'device-1' are of different spaces"),
        ([first, replace(second, batch_size=8)], "'device-0', 'device-1' have batch sizes 1 and 8"),
        ([first, replace(second, rows=(other,))], "profiles 'device-0', 'device-1' have no block in common"),
        ([first, replace(second, networks=())], "profiles 'device-1' have no measured networks to learn from"),
    ]:
        with pytest.raises(ProfileError, match=re.escape(message)):
            transferred_rows(sources, networks)


def test_networks_that_say_nothing_are_refused() -> None:
    rng = np.random.default_rng(0)
    sources = make_sources(rng, 2)
    networks = measured_on(sources[0], sample_networks(rng, 10), rng)
    for given, message in [
        (networks[:2], "2 measured networks can't make a profile; give 3 or more"),
        ((*networks, replace(networks[0], latency_ms=0.0)), "a measured network has a latency of 0 ms"),
        ((*networks, replace(networks[0], blocks=(("z", "int8"),))), "block 'z' at precision 'int8' isn't in all of"),
    ]:
        with pytest.raises(ProfileError, match=re.escape(message)):
            transferred_rows(sources, given)
    with pytest.raises(ProfileError, match="20 networks to measure must be 3 to 10, the candidates"):
        select_networks(sources, [network.blocks for network in networks], 20)
