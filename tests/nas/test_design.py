"""Designed networks: what is printed and written, and that a search understands it."""

import json
from pathlib import Path

import pytest

from hardware_profiles.profile import HardwareProfile
from nas.candidates import CheapObjectives, device_free_costs
from nas.cli import main
from nas.design import design_network
from nas.entropy_program import Budgets
from nas.errors import UserError
from nas.run_inputs import find_architecture
from search_spaces.cost import network_cost
from search_spaces.precision import CandidateSpace
from tests.hardware_profiles.profiles import make_space_profile
from tests.tiny_space import tiny

SPACE = tiny()
DESIGN = ["design", "--space", "tests.tiny_space:tiny", "--num-channels", "1", "--num-classes", "4"]


@pytest.fixture
def profile() -> HardwareProfile:
    return make_space_profile(SPACE)


def test_a_design_keeps_its_budgets_and_says_what_it_costs(profile: HardwareProfile) -> None:
    half = network_cost(SPACE.blocks(SPACE.largest())).macs / 2
    found = design_network(SPACE, Budgets(macs=half, latency_ms=11.0), profile=profile)
    assert found.costs["macs"] <= half
    assert found.costs["predicted_latency_ms"] <= 11.0
    assert found.costs["predicted_fastest_latency_ms"] < found.costs["predicted_latency_ms"]
    candidates = CandidateSpace(SPACE, precisions=profile.precisions)
    row = CheapObjectives(candidates, profile)([candidates.genotype(candidates.uniform(found.architecture))])
    assert row["latency_ms"][0] == found.costs["predicted_latency_ms"]
    for name, value in device_free_costs(SPACE.blocks(found.architecture)).items():
        assert found.costs[name] == value == row[name][0]


def test_a_profile_of_another_space_is_refused() -> None:
    other = make_space_profile(tiny(num_classes=7))
    with pytest.raises(UserError, match="profile 'made-up' measured 'tiny'"):
        design_network(SPACE, Budgets(), profile=other)


def test_the_command_writes_an_architecture_that_a_search_takes(
    profile: HardwareProfile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile.save(tmp_path / "profile.json")
    path = tmp_path / "designs" / "architecture.json"
    arguments = ["--hardware", str(tmp_path / "profile.json"), "--max-latency-ms", "11", "--output", str(path)]
    main([*DESIGN, *arguments])
    printed = capsys.readouterr().out
    assert "effectiveness, depth over width" in printed
    assert "predicted ms, fp32" in printed
    found = find_architecture(SPACE, str(path))
    assert found == design_network(SPACE, Budgets(latency_ms=11.0), profile=profile).architecture
    assert json.loads(path.read_text())["predicted_latency_ms"] <= 11


def test_an_existing_file_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "architecture.json"
    path.write_text("mine")
    with pytest.raises(SystemExit, match="2"):
        main([*DESIGN, "--max-effectiveness", "0.3", "--output", str(path)])
    assert "exists; nothing was overwritten, give another file" in capsys.readouterr().err
    assert path.read_text() == "mine"
