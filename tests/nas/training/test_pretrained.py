"""A supernet started from a trained network holds it, and its leading slices hold its most important channels."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nas.data import ImageData
from nas.errors import UserError
from nas.evaluation import accuracy_pct, normalize, recalibrate
from nas.evaluator import Evaluator
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
    """An export of the largest network, trained alone."""
    parent = tmp_path_factory.mktemp("largest")
    alone = FixedSpace(SPACE, SPACE.largest())
    options = TrainOptions(num_epochs=8, batch_size=64, strategy="single-path", learning_rate=3e-3)
    supernet = train_supernet(alone, tiny_data, parent / "run", options=options)
    candidate = CandidateSpace(SPACE).uniform(SPACE.largest())
    return export_model(Evaluator(supernet, tiny_data, bits=7), candidate, parent / "model")


def test_the_network_itself_comes_back(folder: Path, tiny_data: ImageData) -> None:
    supernet = Supernet(SPACE)
    assert initialise(supernet, str(folder)) == SPACE.largest()
    found = recalibrate(supernet.extract(SPACE.largest()), tiny_data)
    assert accuracy_pct(found, tiny_data.test, tiny_data) > 60  # chance is 25
    x_BCHW = normalize(tiny_data.test.images_BCHW, tiny_data)
    with torch.no_grad():
        torch.testing.assert_close(found(x_BCHW), trained_network(folder).eval()(x_BCHW), rtol=1e-5, atol=1e-5)


def test_small_network_hidden_in_the_last_channels_of_a_wide_one_is_found(tmp_path: Path, tiny_data: ImageData) -> None:
    options = TrainOptions(num_epochs=8, batch_size=64, strategy="single-path", learning_rate=3e-3, num_watched=0)
    alone = train_supernet(FixedSpace(SPACE, SPACE.smallest()), tiny_data, tmp_path / "run", options=options)
    small = recalibrate(alone.extract(SPACE.smallest()), tiny_data)
    wide = SPACE.architecture(SPACE.smallest().genotype | {"stage1.width": 16, "stage2.width": 24})
    hiding = Supernet(SPACE)
    hiding.flat.mul_(1e-3)
    hiding.put(SPACE.smallest(), small)
    hidden = reverse_channels(recalibrate(hiding.extract(wide), tiny_data))
    (tmp_path / "architecture.json").write_text(json.dumps({"architecture": wide.to_json()}))
    save_file(hidden.state_dict(), tmp_path / TRAINED)

    sorted_, plain = Supernet(SPACE), Supernet(SPACE)
    assert initialise(sorted_, str(tmp_path)) == wide
    plain.put(wide, hidden)
    found, missed = (recalibrate(each.extract(SPACE.smallest()), tiny_data) for each in (sorted_, plain))
    x_BCHW = normalize(tiny_data.test.images_BCHW, tiny_data)
    with torch.no_grad():
        torch.testing.assert_close(found(x_BCHW), small(x_BCHW), rtol=1e-4, atol=1e-4)
    assert accuracy_pct(found, tiny_data.test, tiny_data) > accuracy_pct(missed, tiny_data.test, tiny_data) + 20


@torch.no_grad()
def reverse_channels(network: Network) -> Network:
    """The network with all channels that may move in reverse order, which leaves its outputs as they are."""
    for block in network.blocks:
        tensors = dict(block.named_parameters()) | dict(block.named_buffers())
        for name, axes in block.channel_axes().items():
            parameter = name.replace("running_mean", "weight").replace("running_var", "weight")
            logical = tensors[name].detach().view(block.weight_maps()[parameter].logical)
            logical.copy_(logical.flip([axis for axis, group in enumerate(axes) if group]))
    return network


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
