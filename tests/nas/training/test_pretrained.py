"""A supernet started from a trained network holds it, and its leading slices hold its most important channels."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nas.candidates import Evaluator
from nas.data import ImageData
from nas.errors import UserError
from nas.evaluation import accuracy_pct, recalibrate
from nas.export import export_model
from nas.supernet import Supernet
from nas.training import TrainOptions, train_supernet
from nas.training.pretrained import TRAINED, initialise
from search_spaces import Network
from search_spaces.errors import SpaceError
from search_spaces.fixed import FixedSpace
from search_spaces.precision import CandidateSpace
from tests.nas.training.runs import small_space

SPACE = small_space()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_data: ImageData) -> Path:
    """An export of the largest network, trained alone; important channels come last."""
    parent = tmp_path_factory.mktemp("largest")
    alone = FixedSpace(SPACE, SPACE.largest())
    options = TrainOptions(num_epochs=8, batch_size=64, strategy="single-path", learning_rate=3e-3)
    supernet = train_supernet(alone, tiny_data, parent / "run", options=options)
    candidate = CandidateSpace(SPACE).uniform(SPACE.largest())
    return export_model(Evaluator(supernet, tiny_data, bits=7), candidate, parent / "model")


def test_the_network_itself_comes_back(folder: Path, tiny_data: ImageData) -> None:
    supernet = Supernet(SPACE)
    assert initialise(supernet, str(folder)) == SPACE.largest()
    found = accuracy_pct(recalibrate(supernet.extract(SPACE.largest()), tiny_data), tiny_data.test, tiny_data)
    assert found > 60  # chance is 25


def test_small_networks_keep_more_of_it_when_channels_are_sorted(folder: Path) -> None:
    sorted_, plain = Supernet(SPACE), Supernet(SPACE)
    initialise(sorted_, str(folder))
    plain.put(SPACE.largest(), trained_network(folder))

    def kept(supernet: Supernet) -> float:
        """Mean absolute weight of the convolutions in the smallest network."""
        small = supernet.extract(SPACE.smallest())
        weights = [p.detach().abs().flatten() for name, p in small.named_parameters() if "0.weight" in name]
        return torch.cat(weights).mean().item()

    assert kept(sorted_) > kept(plain)


def trained_network(folder: Path) -> Network:
    network = SPACE.build(SPACE.largest())
    network.load_state_dict(load_file(folder / TRAINED))
    return network


def test_training_starts_from_it(folder: Path, tmp_path: Path, tiny_data: ImageData) -> None:
    options = TrainOptions(num_epochs=1, batch_size=64, learning_rate=1e-6, ema_decay=0.0, init=str(folder))
    supernet = train_supernet(SPACE, tiny_data, tmp_path, options=options)
    fresh = Supernet(SPACE)
    initialise(fresh, str(folder))
    for place in ("stem/stem/first.0.weight", "head/head/classify.weight"):
        torch.testing.assert_close(supernet.shared[place], fresh.shared[place], rtol=0, atol=1e-3)


def test_what_is_no_network_of_the_space_is_refused(folder: Path, tmp_path: Path) -> None:
    supernet = Supernet(SPACE)
    with pytest.raises(UserError, match="is no trained network .*; give a folder made by `nas export`"):
        initialise(supernet, str(tmp_path))
    with pytest.raises(SpaceError, match="search space 'small' has no point that equals timm's 'resnet18'; give the"):
        initialise(supernet, "timm:resnet18")
    with pytest.raises(UserError, match="timm has no network 'resnet17'"):
        initialise(supernet, "timm:resnet17")
    for name in ("architecture.json", TRAINED):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    save_file({"blocks.0.x": torch.zeros(2)}, tmp_path / TRAINED)
    with pytest.raises(UserError, match="has other tensors than its architecture in 'small'; export it again"):
        initialise(supernet, str(tmp_path))
