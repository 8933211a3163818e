"""Hardware profiles and their files."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_profiles.errors import ProfileError
from hardware_profiles.profile import BlockRow, HardwareProfile, NetworkRow, find_profile, list_profiles
from tests.hardware_profiles.profiles import make_profile

NETWORK = NetworkRow(blocks=(("a", "fp32"), ("b", "int8")), latency_ms=3.4, spread_pct=2.0, role="fit")

numbers = st.floats(0, 1e6)


@pytest.fixture
def profile() -> HardwareProfile:
    return make_profile(networks=(NETWORK, dataclasses.replace(NETWORK, role="held-out")))


@pytest.fixture
def path(profile: HardwareProfile, tmp_path: Path) -> Path:
    """A saved profile."""
    profile.save(tmp_path / "profile.json")
    return tmp_path / "profile.json"


@given(st.dictionaries(st.tuples(st.text(), st.sampled_from(["fp32", "int8"])), numbers, min_size=1), numbers)
def test_any_profile_round_trips_through_json(costs: dict[tuple[str, str], float], call_overhead_ms: float) -> None:
    profile = make_profile(latency_ms=costs, call_overhead_ms=call_overhead_ms, networks=(NETWORK,))
    again = HardwareProfile.from_json(json.loads(json.dumps(profile.to_json())))
    assert again == profile
    assert again.fingerprint == profile.fingerprint


def test_a_saved_profile_loads_equal_and_leaves_nothing_else(profile: HardwareProfile, path: Path) -> None:
    assert HardwareProfile.load(path) == profile
    assert [file.name for file in path.parent.iterdir()] == ["profile.json"]


def test_signed_activations_are_kept_and_files_without_them_load(profile: HardwareProfile, path: Path) -> None:
    assert "signed_activations" not in path.read_text()
    signed = dataclasses.replace(profile, signed_activations=True)
    signed.save(path, overwrite=True)
    assert HardwareProfile.load(path) == signed
    assert signed.fingerprint != profile.fingerprint


def test_forms_of_pointwise_layers_are_kept_and_files_without_them_load(profile: HardwareProfile, path: Path) -> None:
    assert "convolutions" not in path.read_text()
    assert HardwareProfile.load(path).convolutions == ()
    other = dataclasses.replace(profile, convolutions=(("mlp", "fp32"),))
    other.save(path, overwrite=True)
    assert HardwareProfile.load(path) == other
    assert other.fingerprint != profile.fingerprint


def test_a_file_has_one_line_a_row(profile: HardwareProfile, path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len([line for line in lines if '"num_runs"' in line]) == len(profile.rows)
    assert len([line for line in lines if '"role"' in line]) == len(profile.networks)


def test_every_field_changes_the_fingerprint(profile: HardwareProfile) -> None:
    changed = [
        dataclasses.replace(profile, num_threads=2),
        dataclasses.replace(profile, space_fingerprint="other"),
        dataclasses.replace(profile, rows=profile.rows[:-1]),
        dataclasses.replace(profile, networks=()),
        dataclasses.replace(profile, date="2026-01-02"),
    ]
    assert len({other.fingerprint for other in [profile, *changed]}) == 1 + len(changed)


def test_latency_is_looked_up_by_block_and_precision(profile: HardwareProfile) -> None:
    assert profile.latency_ms("b", "int8") == 2.5
    assert profile.rows[profile.row("b", "int8")].key == "b"


def test_a_missing_block_is_named_with_the_way_out(profile: HardwareProfile) -> None:
    with pytest.raises(ProfileError, match=r"no row for block 'a' at precision 'int8-dynamic'; profile the space"):
        profile.latency_ms("a", "int8-dynamic")


def test_saving_the_same_profile_again_is_fine(profile: HardwareProfile, path: Path) -> None:
    written_ns = path.stat().st_mtime_ns
    profile.save(path)
    assert path.stat().st_mtime_ns == written_ns


def test_another_profile_is_overwritten_on_purpose_only(profile: HardwareProfile, path: Path) -> None:
    other = dataclasses.replace(profile, num_threads=2)
    with pytest.raises(ProfileError, match="holds another profile"):
        other.save(path)
    assert HardwareProfile.load(path) == profile
    other.save(path, overwrite=True)
    assert HardwareProfile.load(path) == other


def test_a_foreign_file_is_not_overwritten(profile: HardwareProfile, tmp_path: Path) -> None:
    path = tmp_path / "notes.json"
    path.write_text("{}")
    with pytest.raises(ProfileError, match=r"isn't a hardware profile.*isn't overwritten"):
        profile.save(path)
    assert path.read_text() == "{}"


def test_a_full_disk_leaves_the_old_file(profile: HardwareProfile, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(ProfileError, match="No space left on device"):
        dataclasses.replace(profile, num_threads=2).save(path, overwrite=True)
    assert HardwareProfile.load(path) == profile
    assert [file.name for file in path.parent.iterdir()] == ["profile.json"]


def test_a_folder_that_is_a_file_is_refused(profile: HardwareProfile, path: Path) -> None:
    with pytest.raises(ProfileError, match="can't write"):
        profile.save(path / "inner.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"no hardware profile .*gone\.json"):
        HardwareProfile.load(tmp_path / "gone.json")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ProfileError, match="truncated or not JSON"):
        HardwareProfile.load(path)


@given(data=st.data())
def test_a_changed_byte_never_loads_as_another_profile(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("altered") / "profile.json"
    profile = make_profile(networks=(NETWORK,))
    profile.save(path)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        loaded = HardwareProfile.load(path)
    except ProfileError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:  # only blank space was changed
        assert loaded == profile


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ('"latency_ms": 2.5', '"latency_ms": 2.4', "was altered since"),
        ('"latency_ms": 2.5', '"latency_ms": -2.5', "0 or more"),
        ('"latency_ms": 2.5', '"latency_ms": NaN', "not JSON"),
        ('"latency_ms": 2.5', '"latency_ms": "2.5"', "0 or more"),
        ('"weight_bits": 8', '"weight_bits": 6', "must be 7 or 8"),
        ('"num_threads": 1', '"num_threads": "1"', "not the content"),
        ('"num_cores": 2', '"cores": 2', "not the content"),
        ('"version": 3', '"version": 1', "format version 1, this release reads 3"),
        ('"version": 3', '"version": null', "format version None"),
        ('"format": "', '"format": "another ', "isn't a hardware profile"),
    ],
)
def test_an_altered_file_is_refused(path: Path, old: str, new: str, rule: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ProfileError, match=rule):
        HardwareProfile.load(path)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"rows": ()}, "no rows"),
        ({"call_overhead_ms": float("nan")}, "call_overhead_ms is nan"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"precisions": ("fp32",)}, "it doesn't declare"),
        ({"held_out": {"all": {"mape_pct": float("inf")}}}, "finite"),
    ],
)
def test_contradictions_are_refused(profile: HardwareProfile, change: dict, rule: str) -> None:
    with pytest.raises(ProfileError, match=rule):
        dataclasses.replace(profile, **change)
    with pytest.raises(ProfileError, match="twice"):
        dataclasses.replace(profile, rows=profile.rows * 2)


def test_rows_validate_themselves() -> None:
    with pytest.raises(ProfileError, match="'a' at 'fp32' is -1"):
        BlockRow(key="a", precision="fp32", latency_ms=-1, spread_pct=0, num_runs=1)
    with pytest.raises(ProfileError, match="no blocks"):
        dataclasses.replace(NETWORK, blocks=())
    with pytest.raises(ProfileError, match="'fit' or 'held-out'"):
        dataclasses.replace(NETWORK, role="test")


def test_shipped_profiles_load_and_are_of_the_device_their_folder_names() -> None:
    for profile in list_profiles():
        assert find_profile(profile.name, space=profile.space) == profile


def test_a_profile_is_found_by_path_or_by_device_and_space(profile: HardwareProfile, path: Path) -> None:
    folder = path.parent / "devices"
    small, large, other = (
        make_profile(space="small"),
        make_profile(space="large"),
        make_profile(name="other-device", space="small"),
    )
    small.save(folder / "test-device" / "profile-small.json")
    large.save(folder / "test-device" / "profile-large.json")
    other.save(folder / "other-device" / "profile.json")
    assert find_profile(path) == profile
    assert find_profile("test-device", space="large", folder=folder) == large
    assert find_profile("other-device", folder=folder) == other
    with pytest.raises(ProfileError, match=r"unknown hardware 'test-devise'.*Did you mean test-device"):
        find_profile("test-devise", folder=folder)
    with pytest.raises(ProfileError, match="several profiles"):
        find_profile("test-device", folder=folder)
    with pytest.raises(ProfileError, match="no profile of space 'huge', only of large, small"):
        find_profile("test-device", space="huge", folder=folder)
    with pytest.raises(ProfileError, match="only of test-space"):
        find_profile(path, space="huge")
