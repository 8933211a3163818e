"""A profile of this machine by whole networks, from a measured profile of the tiny space."""

from dataclasses import replace

import numpy as np
import pytest

from hardware_profiles.errors import ProfileError
from hardware_profiles.profile import HardwareProfile
from hardware_profiles.runtimes import get_runtime
from nas.errors import UserError
from nas.profiling import transfer_profile
from predictors.latency import LatencyPredictor
from tests.nas.profiling.test_local import Scripted
from tests.tiny_space import tiny


def twice_as_slow(profile: HardwareProfile) -> HardwareProfile:
    """Another device."""
    return replace(
        profile,
        name="slower",
        rows=tuple(replace(row, latency_ms=2 * row.latency_ms) for row in profile.rows),
        networks=tuple(replace(network, latency_ms=2 * network.latency_ms) for network in profile.networks),
    )


def test_whole_networks_are_measured_and_all_rows_predicted(tiny_profile: HardwareProfile) -> None:
    sources = [tiny_profile, twice_as_slow(tiny_profile)]
    found = transfer_profile(tiny(), sources, runtime=get_runtime("onnxruntime"), num_samples=12, budget_s=2.0)
    assert set(found.row_index) == set(tiny_profile.row_index)
    assert not any(row.measured for row in found.rows)
    assert [network.role for network in found.networks] == ["fit"] * 12
    assert len({network.blocks for network in found.networks}) == 12
    networks = [network.blocks for network in tiny_profile.networks]
    predicted = LatencyPredictor.from_profile(found).predict(networks)
    assert np.median(predicted / [network.latency_ms for network in tiny_profile.networks]) == pytest.approx(1, abs=0.5)


def test_a_budget_too_short_for_the_networks_is_refused(
    tiny_profile: HardwareProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Scripted()
    monkeypatch.setattr("nas.profiling.transferred.find_weight_bits", lambda runtime: 8)  # Scripted computes nothing
    with pytest.raises(UserError, match="of 20 networks were measured; give a larger --budget"):
        transfer_profile(tiny(), [tiny_profile], runtime=runtime, budget_s=0.2, clock=runtime)


def test_sources_of_another_space_or_batch_and_odd_samples_are_refused(tiny_profile: HardwareProfile) -> None:
    runtime = get_runtime("onnxruntime")
    with pytest.raises(UserError, match="profile 'here' is of space 'tiny', another version of it, or images"):
        transfer_profile(tiny(num_classes=7), [tiny_profile], runtime=runtime)
    with pytest.raises(UserError, match="profile 'here' was measured with --batch 1, not 8; use --batch 1"):
        transfer_profile(tiny(), [tiny_profile], runtime=runtime, batch_size=8)
    with pytest.raises(UserError, match="samples 4 must be 5 to 96; 20 are usual"):
        transfer_profile(tiny(), [tiny_profile], runtime=runtime, num_samples=4)


def test_sources_without_networks_are_refused(tiny_profile: HardwareProfile) -> None:
    with pytest.raises(ProfileError, match="profiles 'here' have no measured networks to learn from"):
        transfer_profile(tiny(), [replace(tiny_profile, networks=())], runtime=get_runtime("onnxruntime"))
