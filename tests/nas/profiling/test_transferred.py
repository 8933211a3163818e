"""A profile by whole networks, measured under a runtime whose every call takes a millisecond."""

from dataclasses import replace

import pytest

from hardware_profiles.errors import ProfileError
from hardware_profiles.profile import HardwareProfile, NetworkRow
from hardware_profiles.runtimes.onnx_runtime import OnnxRuntime
from nas.errors import UserError
from nas.profiling import plan_profile, transfer_profile
from tests.hardware_profiles.profiles import make_space_profile
from tests.nas.profiling.test_local import Scripted
from tests.tiny_space import tiny


@pytest.fixture(autouse=True)
def _eight_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.profiling.transferred.find_weight_bits", lambda runtime: 8)  # Scripted computes nothing


@pytest.fixture(scope="module")
def source() -> HardwareProfile:
    """A device on which networks take what their blocks take."""
    profile = make_space_profile(tiny())
    networks = tuple(
        NetworkRow(
            blocks=network.blocks,
            latency_ms=profile.call_overhead_ms + sum(profile.latency_ms(*pair) for pair in network.blocks),
            spread_pct=1.0,
            role=network.role,
        )
        for network in plan_profile(tiny(), OnnxRuntime.precisions, num_fit=24, num_held_out=0).networks
    )
    return replace(profile, networks=networks)


def test_whole_networks_are_measured_and_all_rows_predicted(source: HardwareProfile) -> None:
    runtime = Scripted()
    sources = [source, replace(source, name="slower", rows=tuple(replace(r, latency_ms=2.0) for r in source.rows))]
    found = transfer_profile(tiny(), sources, runtime=runtime, num_samples=12, budget_s=5, clock=runtime)
    assert set(found.row_index) == set(source.row_index)
    assert not any(row.measured for row in found.rows)
    assert [network.role for network in found.networks] == ["fit"] * 12
    assert len({network.blocks for network in found.networks}) == 12
    assert all(network.latency_ms == pytest.approx(1) for network in found.networks)
    assert (found.space_fingerprint, found.runtime) == (tiny().fingerprint, "scripted")


def test_pointwise_layers_have_the_form_that_all_sources_have(source: HardwareProfile) -> None:
    pairs = (("mlp", "fp32"), ("mlp", "int8"))
    both, one = (replace(source, convolutions=convolutions) for convolutions in (pairs, pairs[:1]))
    for sources, expected in (([both], pairs), ([both, one], pairs[:1]), ([one, source], ())):
        runtime = Scripted()
        found = transfer_profile(tiny(), sources, runtime=runtime, num_samples=12, budget_s=5, clock=runtime)
        assert found.convolutions == expected


def test_a_budget_too_short_for_the_networks_is_refused(source: HardwareProfile) -> None:
    runtime = Scripted()
    with pytest.raises(UserError, match="of 20 networks were measured; give a larger --budget, or another --runtime"):
        transfer_profile(tiny(), [source], runtime=runtime, budget_s=0.2, clock=runtime)


def test_sources_of_another_space_or_batch_and_odd_samples_are_refused(source: HardwareProfile) -> None:
    with pytest.raises(UserError, match="profile 'made-up' is of space 'tiny', another version of it, or images"):
        transfer_profile(tiny(num_classes=7), [source], runtime=Scripted())
    with pytest.raises(UserError, match="profile 'made-up' was measured with --batch 1, not 8; use --batch 1"):
        transfer_profile(tiny(), [source], runtime=Scripted(), batch_size=8)
    with pytest.raises(UserError, match="samples 4 must be 5 to 96; 20 are usual"):
        transfer_profile(tiny(), [source], runtime=Scripted(), num_samples=4)


def test_sources_without_networks_are_refused(source: HardwareProfile) -> None:
    with pytest.raises(ProfileError, match="profiles 'made-up' have no measured networks to learn from"):
        transfer_profile(tiny(), [replace(source, networks=())], runtime=Scripted())
