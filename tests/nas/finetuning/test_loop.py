"""Training of deployed networks under a policy: what it computes is what the runtime will, and resuming is exact."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from hardware_profiles.runtimes.onnx_runtime import OnnxRuntime
from nas.data import ImageData
from nas.errors import UserError
from nas.evaluation import normalize
from nas.evaluator import Evaluator
from nas.finetuning.loop import finetune_network, finetune_recipe
from nas.finetuning.options import FinetuneOptions
from nas.onnx_model import export_network
from nas.quantization import simulate
from nas.supernet import Supernet
from nas.training import TrainOptions
from search_spaces import Network
from search_spaces.precision import PRECISIONS, Candidate, CandidateSpace, uniform_policy
from tests.nas.quantized_networks import deployed, rms, run
from tests.tiny_space import tiny

SPACE = tiny()
SPECS = SPACE.blocks(SPACE.largest())
BITS = 7
"""Exact in ONNX Runtime on every processor."""
RECIPE = finetune_recipe(TrainOptions(batch_size=48), FinetuneOptions(epochs=2, learning_rate=2e-3))
INT8 = CandidateSpace(SPACE).uniform(SPACE.middle(), "int8")


class InterruptError(Exception):
    """Stands for a kill."""


@pytest.fixture(scope="module")
def evaluator(tiny_data: ImageData) -> Evaluator:
    torch.manual_seed(0)
    return Evaluator(Supernet(SPACE), tiny_data, bits=BITS)


def gradients(network: Network, x_BCHW: torch.Tensor, labels_B: torch.Tensor) -> list[torch.Tensor]:
    loss = F.cross_entropy(network(x_BCHW), labels_B)
    return list(torch.autograd.grad(loss, list(network.parameters())))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_gradients_pass_straight_through_to_every_weight(precision: str) -> None:
    network, ranges, x_BCHW = deployed(SPECS)
    network.requires_grad_(True)
    labels_B = torch.arange(len(x_BCHW)) % 4
    simulated = simulate(network, uniform_policy(SPECS, precision), ranges)
    for exact, found in zip(gradients(network, x_BCHW, labels_B), gradients(simulated, x_BCHW, labels_B), strict=True):
        assert found.shape == exact.shape
        if exact.norm() > 1e-6:  # a key's bias has none: softmax doesn't see it
            assert F.cosine_similarity(found.flatten(), exact.flatten(), dim=0) > 0.8


@pytest.mark.parametrize("precision", PRECISIONS)
def test_simulated_parameters_are_the_networks_in_order(precision: str) -> None:
    network, ranges, _ = deployed(SPECS)
    simulated = simulate(network, uniform_policy(SPECS, precision), ranges)
    pairs = zip(network.parameters(), simulated.parameters(), strict=True)
    for exact, rounded in ((exact.detach(), rounded.detach()) for exact, rounded in pairs):
        assert exact.shape == rounded.shape
        assert rms(exact - rounded) < 0.1 * rms(exact) + 1e-3  # four bits are the fewest


def test_finetuning_learns_and_leaves_the_evaluators_network_alone(evaluator: Evaluator, tmp_path: Path) -> None:
    network, _ = evaluator.deployed(INT8.architecture)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    trained = finetune_network(evaluator, INT8, recipe=RECIPE, checkpoint=tmp_path / "checkpoint")
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    moved = {name for name, p in trained.network.named_parameters() if not torch.equal(p, before[name])}
    still = {name for name, _ in trained.network.named_parameters()} - moved
    assert all(name.endswith("key.bias") for name in still)  # softmax doesn't see it
    assert [row["epoch"] for row in trained.history] == [0, 1]
    assert trained.history[1]["loss"] < trained.history[0]["loss"]


@torch.no_grad()
@pytest.mark.parametrize("precision", OnnxRuntime.precisions)
def test_onnx_runtime_computes_what_was_trained(
    precision: str, evaluator: Evaluator, tiny_data: ImageData, tmp_path: Path
) -> None:
    candidate = CandidateSpace(SPACE).uniform(SPACE.middle(), precision)
    with torch.enable_grad():
        trained = finetune_network(evaluator, candidate, recipe=RECIPE, checkpoint=tmp_path / "checkpoint")
    simulated = evaluator.simulated(trained.network, candidate.policy, trained.ranges)
    model = export_network(trained.network, candidate.policy, trained.ranges, weight_bits=BITS)
    x_BCHW = normalize(tiny_data.validation.images_BCHW, tiny_data).contiguous()
    expected, found = simulated(x_BCHW), run(OnnxRuntime(), model, x_BCHW)
    assert rms(found - expected) < 0.01 * rms(expected)
    assert (found.argmax(dim=1) == expected.argmax(dim=1)).float().mean() >= 0.99


def interrupted_at(step: int) -> Any:
    def progress(done: int, total: int, message: str) -> None:
        if done == step:
            raise InterruptError

    return progress


def same_weights(first: Network, second: Network) -> bool:
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(name == other and torch.equal(a, b) for (name, a), (other, b) in pairs)


@pytest.mark.parametrize("step", [3, 10, 14])
def test_an_interrupted_training_continues_to_the_same_weights(step: int, evaluator: Evaluator, tmp_path: Path) -> None:
    undisturbed = finetune_network(evaluator, INT8, recipe=RECIPE, checkpoint=tmp_path / "a")
    with pytest.raises(InterruptError):
        finetune_network(evaluator, INT8, recipe=RECIPE, checkpoint=tmp_path / "b", progress=interrupted_at(step))
    assert (tmp_path / "b").exists() == (step > 10)  # ten steps an epoch; the tenth reports before it is saved
    torch.manual_seed(99)  # chance outside has no part in it
    resumed = finetune_network(evaluator, INT8, recipe=RECIPE, checkpoint=tmp_path / "b")
    assert resumed.history == undisturbed.history
    assert resumed.ranges == undisturbed.ranges
    assert same_weights(resumed.network, undisturbed.network)


def test_checkpoints_of_other_trainings_and_damaged_ones_are_refused(evaluator: Evaluator, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    finetune_network(evaluator, INT8, recipe=RECIPE, checkpoint=path)
    other = Candidate(architecture=INT8.architecture)
    with pytest.raises(UserError, match="is of another finetuning; remove it, or --redo finetune"):
        finetune_network(evaluator, other, recipe=RECIPE, checkpoint=path)
    path.write_bytes(b"{")
    with pytest.raises(UserError, match="can't be read .* remove it and run the same command again"):
        finetune_network(evaluator, INT8, recipe=RECIPE, checkpoint=path)


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("fp32", r"6 steps of finetuning in a row had no finite loss or gradient; lower .* rate, 1e\+30 now"),
        ("int8", r"finetuning diverged at learning rate 1e\+30 \(calibration .*\); lower it"),
    ],
)
def test_a_training_that_diverges_ends_in_one_line(
    precision: str, message: str, evaluator: Evaluator, tmp_path: Path
) -> None:
    wild = finetune_recipe(TrainOptions(batch_size=48), FinetuneOptions(learning_rate=1e30))
    candidate = CandidateSpace(SPACE).uniform(SPACE.middle(), precision)
    with pytest.raises(UserError, match=message):
        finetune_network(evaluator, candidate, recipe=wild, checkpoint=tmp_path / "checkpoint")
