"""What every strategy promises. Subclass `StrategyContract` in a test module and name its class and options."""

import gc
from abc import ABC
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nas.supernet import Supernet
from nas.training import Strategy, TrainOptions
from nas.training.strategies import Batch
from search_spaces import Architecture, Network, SearchSpace
from search_spaces.hybrid import HybridSpace, Stage
from tests.tiny_data import draw

NUM_CLASSES = 4


def contract_space(*, num_channels: int = 1) -> HybridSpace:
    """16x16 images, two stages with a choice of width and depth."""
    stages = (Stage(widths=(8, 16), depths=(1, 2)), Stage(widths=(16, 24), depths=(1, 2)))
    shape = {"image_size": 16, "stem_stride": 2, "head_dim": 8}
    return HybridSpace("contract", stages, **shape, num_channels=num_channels, num_classes=NUM_CLASSES)


def make_supernet(space: SearchSpace, *, seed: int = 0) -> Supernet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Supernet(space)


def make_batch(num_images: int = 8, *, num_channels: int = 1, seed: int = 0) -> Batch:
    """Patterns that can be learnt; the second view is the first with noise."""
    rng = np.random.default_rng(seed)
    images_BCHW, labels_B = draw(num_images, size=16, rng=rng)
    x_BCHW = torch.from_numpy(images_BCHW).float().sub(128).div(60).expand(-1, num_channels, -1, -1)
    x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
    noise_BCHW = torch.from_numpy(rng.normal(0, 0.2, tuple(x_BCHW.shape)).astype(np.float32))
    targets_BK = F.one_hot(torch.from_numpy(labels_B), NUM_CLASSES).float()
    return Batch(x_BCHW=x_BCHW, targets_BK=targets_BK, view_BCHW=x_BCHW + noise_BCHW)


def take_step(strategy: Strategy, supernet: Supernet, batch: Batch, *, done: float = 1.0, seed: int = 0) -> float:
    """One step with chance from `seed`; gradients of the heads are kept like the supernet's."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return strategy.step(supernet, batch, done=done, rng=np.random.default_rng(seed)).item()


def trained_by(supernet: Supernet, monkeypatch: pytest.MonkeyPatch) -> list[Architecture]:
    """The architectures that `supernet` scatters gradients of from now on, in order."""
    found: list[Architecture] = []
    gathered: dict[int, Architecture] = {}
    subnet, scatter = supernet.subnet, supernet.scatter

    def spied_subnet(architecture: Architecture, *, training: bool = True) -> Network:
        network = subnet(architecture, training=training)
        gathered[id(network)] = architecture
        return network

    def spied_scatter(network: Network) -> None:
        found.append(gathered[id(network)])
        scatter(network)

    monkeypatch.setattr(supernet, "subnet", spied_subnet)
    monkeypatch.setattr(supernet, "scatter", spied_scatter)
    return found


def used_keys(supernet: Supernet, architectures: list[Architecture]) -> set[str]:
    """Names of the shared tensors that some of the networks has."""
    weight_keys = {supernet.weight_key(spec) for each in architectures for spec in supernet.space.blocks(each)}
    return {key for key in supernet.shared if key.rpartition("/")[0] in weight_keys}


def loss_of(supernet: Supernet, architecture: Architecture, batch: Batch) -> float:
    """Cross-entropy towards the labels, with norm statistics of the batch."""
    with torch.no_grad():
        return F.cross_entropy(supernet.subnet(architecture)(batch.x_BCHW), batch.targets_BK).item()


class StrategyContract(ABC):
    """Tests that call nothing but the interface."""

    strategy_class: ClassVar[type[Strategy]]
    options: ClassVar[dict[str, Any]] = {}
    learns_labels: ClassVar[bool] = True
    """Whether the largest network's loss on the labels falls, not only the strategy's own."""

    def make(self, space: SearchSpace, **changes: Any) -> Strategy:
        """The strategy under test, its heads with equal weights each time."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            options = TrainOptions(students_from_pct=0, **(self.options | changes))
            return self.strategy_class(options, space)

    @pytest.mark.parametrize("num_channels", [1, 3])
    def test_eight_grey_or_coloured_images_give_a_finite_loss_and_gradient(self, num_channels: int) -> None:
        space = contract_space(num_channels=num_channels)
        supernet = make_supernet(space)
        loss = take_step(self.make(space), supernet, make_batch(num_channels=num_channels))
        assert np.isfinite(loss)
        assert supernet.flat_grad.isfinite().all()
        assert supernet.flat_grad.any()

    def test_thirty_steps_on_one_batch_lower_the_loss(self) -> None:
        space, batch = contract_space(), make_batch(16)
        supernet, strategy = make_supernet(space), self.make(space)
        heads = list(strategy.heads.parameters())
        optimizer = torch.optim.AdamW([*supernet.shared.values(), *heads], lr=3e-3)
        before, losses = loss_of(supernet, space.largest(), batch), []
        for step in range(30):
            supernet.zero_grad()
            strategy.heads.zero_grad()
            losses.append(take_step(strategy, supernet, batch, done=step / 30, seed=step))
            optimizer.step()
            strategy.after_update(supernet)
        if self.learns_labels:
            assert loss_of(supernet, space.largest(), batch) < 0.8 * before
        else:
            assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])

    def test_equal_seeds_give_equal_gradients_and_others_do_not(self) -> None:
        space, batch, found = contract_space(), make_batch(), []
        for seed in (1, 1, 2):
            supernet = make_supernet(space)
            strategy = self.make(space)
            loss = take_step(strategy, supernet, batch, seed=seed)
            heads = [parameter.grad for parameter in strategy.heads.parameters() if parameter.grad is not None]
            found.append(torch.cat([torch.tensor([loss]), supernet.flat_grad, *(grad.flatten() for grad in heads)]))
        assert torch.equal(found[0], found[1])
        assert not torch.equal(found[0], found[2])

    def test_gradients_of_an_earlier_part_of_the_step_are_kept(self) -> None:
        space = contract_space()
        supernet, strategy = make_supernet(space), self.make(space)
        gradients = []
        for before in (False, True):
            supernet.zero_grad()
            strategy.heads.zero_grad()
            if before:
                take_step(strategy, supernet, make_batch(seed=1), seed=1)
                earlier = supernet.flat_grad.clone()
                earlier_heads = [p.grad.clone() for p in strategy.heads.parameters() if p.grad is not None]
            take_step(strategy, supernet, make_batch(), seed=0)
            gradients.append((supernet.flat_grad.clone(), [p.grad for p in strategy.heads.parameters()]))
        (alone, alone_heads), (added, added_heads) = gradients
        torch.testing.assert_close(added, earlier + alone, rtol=1e-4, atol=1e-5)
        for sum_of_both, *parts in zip(added_heads, earlier_heads, alone_heads, strict=True):
            torch.testing.assert_close(sum_of_both, sum(parts), rtol=1e-4, atol=1e-5)

    def test_tensors_that_no_network_of_the_step_uses_have_no_gradient_and_do_not_move(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        space = contract_space()
        supernet, strategy = make_supernet(space), self.make(space)
        trained = trained_by(supernet, monkeypatch)
        optimizer = torch.optim.AdamW(supernet.shared.values(), lr=1e-2, weight_decay=0.1)
        for parameter in supernet.shared.values():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        supernet.zero_grad()
        take_step(strategy, supernet, make_batch())
        used = used_keys(supernet, trained)
        assert {key for key, parameter in supernet.shared.items() if parameter.grad is not None} == used
        before = {key: parameter.detach().clone() for key, parameter in supernet.shared.items()}
        optimizer.step()
        moved = {key for key, parameter in supernet.shared.items() if not torch.equal(parameter, before[key])}
        assert moved == used
        assert used < set(supernet.shared)

    def test_nothing_but_gradients_is_left_behind(self, monkeypatch: pytest.MonkeyPatch) -> None:
        space, batch = contract_space(), make_batch()
        supernet, strategy = make_supernet(space), self.make(space)
        trained = trained_by(supernet, monkeypatch)
        weights, held = supernet.flat.clone(), set(vars(strategy))
        loss = strategy.step(supernet, batch, done=1.0, rng=np.random.default_rng(0))
        assert (loss.shape, loss.requires_grad) == ((), False)
        gc.collect()
        tensors = [found for found in gc.get_objects() if issubclass(type(found), torch.Tensor)]
        assert not [found.shape for found in tensors if found.grad_fn is not None]
        assert set(vars(strategy)) == held
        assert not any(isinstance(value, Network) for value in vars(strategy).values())
        assert torch.equal(supernet.flat, weights)
        assert torch.is_grad_enabled()
        for architecture in trained:
            network = supernet.subnet(architecture)
            assert all(module.training for module in network.modules())
            assert not any(parameter.grad is not None for parameter in network.parameters())
            assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())

    def test_mixed_precision_gives_a_finite_gradient_in_fp32(self) -> None:
        space = contract_space()
        supernet = make_supernet(space)
        take_step(self.make(space, mixed_precision="bf16", drop_path=0.3), supernet, make_batch())
        assert supernet.flat_grad.dtype == torch.float32
        assert supernet.flat_grad.isfinite().all()
