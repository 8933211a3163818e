"""Exported folders: complete, as large as predicted, and loadable without the package's supernet."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hardware_profiles.profile import HardwareProfile
from hardware_profiles.runtimes import get_runtime
from hardware_profiles.runtimes.onnx_runtime import OnnxRuntime
from nas.candidates import CheapObjectives
from nas.data import ImageData
from nas.errors import UserError
from nas.evaluation import normalize
from nas.evaluator import Evaluator
from nas.export import FILES, UNPACKED, export_model, load_model
from nas.supernet import Supernet
from nas.training.pretrained import TRAINED
from nas.verify import run_file
from search_spaces.precision import Candidate, CandidateSpace
from tests.nas.quantized_networks import random_candidate, rms
from tests.tiny_space import tiny

SPACE = tiny()
CANDIDATES = CandidateSpace(SPACE, precisions=OnnxRuntime.precisions)
CHOSEN = [
    CANDIDATES.uniform(SPACE.largest()),
    CANDIDATES.uniform(SPACE.largest(), "int8"),
    CANDIDATES.uniform(SPACE.largest(), "int8-dynamic"),
    random_candidate(SPACE, 2),
]


CONVOLUTIONS = [(spec.kind, precision) for spec in SPACE.block_specs() for precision in ("fp32", "int8")]


@pytest.fixture(scope="module", params=[(), CONVOLUTIONS], ids=["products", "convolutions"])
def evaluator(request: pytest.FixtureRequest, tiny_data: ImageData) -> Evaluator:
    torch.manual_seed(0)
    bits = 7  # exact on every processor
    return Evaluator(Supernet(SPACE), tiny_data, bits=bits, convolutions=request.param)


@pytest.fixture(scope="module", params=CHOSEN, ids=["fp32", "int8", "int8-dynamic", "random"])
def exported(
    request: pytest.FixtureRequest, evaluator: Evaluator, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Candidate, Path]:
    folder = tmp_path_factory.mktemp("models") / "0"
    return request.param, export_model(evaluator, request.param, folder, objectives={"error_pct": 50.0})


def test_folder_is_complete_and_describes_itself(exported: tuple[Candidate, Path], tiny_data: ImageData) -> None:
    candidate, folder = exported
    assert {path.name for path in folder.iterdir()} == set(FILES)
    assert [path.name for path in folder.parent.iterdir()] == ["0"]
    description = json.loads((folder / "architecture.json").read_text())
    assert Candidate.from_json(description) == candidate
    specs = SPACE.blocks(candidate.architecture)
    assert [(b["name"], b["precision"]) for b in description["blocks"]] == [
        (spec.name, candidate.policy[spec.name]) for spec in specs
    ]
    assert description["objectives"] == {"error_pct": 50.0}
    preprocess = json.loads((folder / "preprocess.json").read_text())
    assert preprocess["class_names"] == list(tiny_data.class_names)
    assert preprocess["mean"] == pytest.approx(list(tiny_data.mean))


def test_both_forms_of_the_weights_are_of_one_recalibration(
    exported: tuple[Candidate, Path], evaluator: Evaluator
) -> None:
    candidate, folder = exported
    network = evaluator.supernet.extract(candidate.architecture).eval()
    network.load_state_dict(load_file(folder / TRAINED))
    deployed = network.deploy().state_dict()
    found = load_file(folder / "weights.safetensors")
    assert set(found) == set(deployed)
    assert all(torch.equal(found[name], deployed[name]) for name in found)


def test_predicted_size_is_that_of_the_file(exported: tuple[Candidate, Path], tiny_profile: HardwareProfile) -> None:
    candidate, folder = exported
    predicted = CheapObjectives(CANDIDATES, tiny_profile)([CANDIDATES.genotype(candidate)])["size_bytes"][0]
    assert predicted == pytest.approx((folder / "model.onnx").stat().st_size, rel=0.1)


@torch.no_grad()
def test_loaded_model_agrees_with_the_file(
    exported: tuple[Candidate, Path], evaluator: Evaluator, tiny_data: ImageData
) -> None:
    candidate, folder = exported
    split = tiny_data.validation
    x_BCHW = normalize(split.images_BCHW, tiny_data)
    loaded = load_model(folder)(x_BCHW)
    difference = loaded - evaluator.network(candidate)(x_BCHW)
    assert rms(difference) < 0.02 * rms(loaded)
    assert (difference.abs().amax(dim=1) < 1e-5).float().mean() > 0.9  # but for ties that memory formats round apart
    classes = run_file(get_runtime("onnxruntime").load(folder / "model.onnx"), split, tiny_data, batch_size=1).classes
    assert np.mean(classes == loaded.argmax(dim=1).numpy()) >= 0.99


@torch.no_grad()
def test_a_folder_from_before_there_were_two_forms_has_products(evaluator: Evaluator, tmp_path: Path) -> None:
    products = Evaluator(evaluator.supernet, evaluator.data, bits=7)
    folder = export_model(products, CHOSEN[1], tmp_path / "0")
    description = json.loads((folder / "architecture.json").read_text())
    del description["convolutions"]
    (folder / "architecture.json").write_text(json.dumps(description))
    x_BCHW = normalize(evaluator.data.validation.images_BCHW[:8], evaluator.data)
    assert rms(load_model(folder)(x_BCHW) - products.network(CHOSEN[1])(x_BCHW)) < 1e-3


@torch.no_grad()
def test_a_folder_from_when_layers_were_packed_loads_as_it_was(evaluator: Evaluator, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    drawn = (SPACE.sample(rng) for _ in range(100))
    kinds = {"gated_mlp", "attention"}
    chosen = next(a for a in drawn if kinds <= {spec.kind for spec in SPACE.blocks(a)})
    folder = export_model(evaluator, CANDIDATES.uniform(chosen, "int8"), tmp_path / "0")
    description = json.loads((folder / "architecture.json").read_text())
    weights = load_file(folder / "weights.safetensors")
    x_BCHW = normalize(evaluator.data.validation.images_BCHW[:8], evaluator.data)
    packed = [
        (packed, parts, saved)
        for packed, parts in UNPACKED.items()
        for saved in description["ranges"].values()
        if parts[0] in saved
    ]
    assert len(packed) >= 2
    for _, (first, second), saved in packed:  # the range of both was that of either
        saved[first] = saved[second]
    (folder / "architecture.json").write_text(json.dumps(description))
    expected_BK = load_model(folder)(x_BCHW)
    for one, (first, second), saved in packed:
        del saved[first]
        saved[one] = saved.pop(second)
    (folder / "architecture.json").write_text(json.dumps(description))
    save_file(pack(weights), folder / "weights.safetensors")
    assert torch.equal(load_model(folder)(x_BCHW), expected_BK)


def pack(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = dict(weights)
    for name in weights:
        for packed, parts in UNPACKED.items():
            if f".{parts[0]}." in name:
                halves = [found.pop(name.replace(f".{parts[0]}.", f".{part}.")) for part in parts]
                found[name.replace(f".{parts[0]}.", f".{packed}.")] = torch.cat(halves)
    return found


def test_export_replaces_an_older_model(evaluator: Evaluator, tmp_path: Path) -> None:
    folder = tmp_path / "7"
    export_model(evaluator, CHOSEN[1], folder)
    (folder / "left.over").write_text("old")
    export_model(evaluator, CHOSEN[0], folder)
    assert {path.name for path in folder.iterdir()} == set(FILES)
    assert json.loads((folder / "architecture.json").read_text())["precisions"] == {}


def test_folder_that_holds_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not an exported model .*; export one with `nas export`"):
        load_model(tmp_path)
    (tmp_path / "architecture.json").write_text("{")
    with pytest.raises(UserError, match="is not an exported model"):
        load_model(tmp_path)


def test_last_batch_is_filled_up(evaluator: Evaluator, tiny_data: ImageData, tmp_path: Path) -> None:
    sevens = Evaluator(evaluator.supernet, tiny_data, batch_size=7, bits=7)
    folder = export_model(sevens, CHOSEN[0], tmp_path / "0")
    session = get_runtime("onnxruntime").load(folder / "model.onnx")
    classes = run_file(session, tiny_data.validation, tiny_data, batch_size=7).classes
    with torch.no_grad():
        expected = load_model(folder)(normalize(tiny_data.validation.images_BCHW, tiny_data)).argmax(dim=1)
    assert len(classes) == len(tiny_data.validation) == 120
    assert np.mean(classes == expected.numpy()) >= 0.99
