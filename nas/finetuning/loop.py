"""Quantization-aware training of one deployed network: norms are folded, so what is trained is what the file holds.

Each step quantizes the weights as `simulate` does, runs that network forward and backward, and applies its gradients to
the weights before quantization: the straight-through estimator (Bengio et al. 2013; Jacob et al. 2018).
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from nas.errors import UserError
from nas.evaluation import normalize
from nas.evaluator import Evaluator
from nas.finetuning.checkpoint import load_epochs, save_epoch
from nas.finetuning.options import FinetuneOptions
from nas.quantization import Ranges
from nas.training.augmentation import mix
from nas.training.batches import STRATEGY, RawBatch, generator, load_batches, steps_per_epoch
from nas.training.distillation import DIVERGENCES
from nas.training.loop import MAX_SKIPPED_IN_A_ROW, learning_rates
from nas.training.options import TrainOptions
from nas.training.state import BETAS
from search_spaces import Network
from search_spaces.precision import Candidate

MAX_GRAD_NORM = 1.0
"""Without batch norm one steep batch could undo the training before it."""


def finetune_recipe(recipe: TrainOptions, options: FinetuneOptions) -> TrainOptions:
    """The supernet's recipe for some epochs at a low rate: its batches and augmentation, one shard, no decay."""
    return replace(
        recipe,
        num_epochs=options.epochs,
        learning_rate=options.learning_rate,
        max_grad_norm=recipe.max_grad_norm or MAX_GRAD_NORM,
        weight_decay=0.0,
        num_shards=1,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Finetuned:
    """A trained deployed network, what goes into its file, and how training went."""

    network: Network
    ranges: Ranges
    history: list[dict[str, float]]
    """A row an epoch: mean loss, and steps skipped because loss or gradient was not finite."""


def finetune_network(
    evaluator: Evaluator,
    candidate: Candidate,
    *,
    recipe: TrainOptions,
    checkpoint: Path,
    progress: Callable[[int, int, str], None] = lambda done, total, message: None,
) -> Finetuned:
    """Train a candidate as the runtime computes it, or continue after the last epoch of an interrupted call.

    It learns the labels and, by `recipe.teacher_weight`, the outputs of the space's largest network in fp32. Activation
    ranges are calibrated before each epoch and after the last. The evaluator's own networks stay as they are.

    Args:
        recipe: from `finetune_recipe`.
        checkpoint: file written after each epoch; the caller removes it once the result is safe.

    Raises:
        UserError: several steps in a row have no finite loss, or the checkpoint is of another training.
    """
    network = copy.deepcopy(evaluator.deployed(candidate.architecture)[0])
    network.requires_grad_(True)  # folding makes biases that have no gradient
    teacher, _ = evaluator.deployed(evaluator.supernet.space.largest())
    training = _Training(evaluator, candidate, network, teacher, recipe)
    about = {"candidate": candidate.to_json(), "data": evaluator.data.fingerprint, "recipe": recipe.to_json()}
    history = load_epochs(checkpoint, network, training.optimizer, about)
    with torch.random.fork_rng(devices=[]):
        for epoch in range(len(history), recipe.num_epochs):
            history.append(training.epoch(epoch, progress))
            save_epoch(checkpoint, network, training.optimizer, about, history)
    return Finetuned(network=network, ranges=training.ranges(), history=history)


class _Training:
    """One network under training; an epoch is a pure function of its number and the weights and moments before it."""

    def __init__(
        self, evaluator: Evaluator, candidate: Candidate, network: Network, teacher: Network, recipe: TrainOptions
    ):
        self._evaluator, self._policy = evaluator, candidate.policy
        self._network, self._teacher, self._recipe = network, teacher, recipe
        self._num_epoch_steps = steps_per_epoch(evaluator.data, recipe)
        self._num_steps = recipe.num_epochs * self._num_epoch_steps
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=recipe.learning_rate, betas=BETAS, weight_decay=recipe.weight_decay, fused=True
        )
        self._schedule = learning_rates(self.optimizer, self._num_steps, recipe)

    def ranges(self) -> Ranges:
        """Of the weights as they are; UserError when training has made them useless."""
        try:
            return self._evaluator.ranges(self._network)
        except UserError as error:
            if not self.optimizer.state:
                raise
            raise UserError(
                f"finetuning diverged at learning rate {self._recipe.learning_rate:g} ({error}); lower it"
            ) from None

    def epoch(self, epoch: int, progress: Callable[[int, int, str], None]) -> dict[str, float]:
        """Train one epoch; its row of the history."""
        ranges = self.ranges()
        steps = range(epoch * self._num_epoch_steps, (epoch + 1) * self._num_epoch_steps)
        batches = load_batches(self._evaluator.data, self._recipe, num_views=1, shards=range(1), steps=steps)
        losses: list[float] = []
        num_skipped, num_in_a_row = 0, 0
        for step, (raw,) in zip(steps, batches, strict=True):
            self._schedule.step_update(step)
            loss = self._step(step, raw, ranges)
            num_in_a_row = 0 if loss is not None else num_in_a_row + 1
            if num_in_a_row > MAX_SKIPPED_IN_A_ROW:
                raise UserError(
                    f"{num_in_a_row} steps of finetuning in a row had no finite loss or gradient; lower the learning "
                    f"rate, {self._recipe.learning_rate:g} now"
                )
            num_skipped += loss is None
            losses += [] if loss is None else [loss]
            progress(step + 1, self._num_steps, f"loss {losses[-1]:.2f}" if losses else "")
        return {"epoch": epoch, "loss": float(np.mean(losses)) if losses else float("nan"), "num_skipped": num_skipped}

    def _step(self, step: int, raw: RawBatch, ranges: Ranges) -> float | None:
        """Move the weights; the loss, None when the step had to be skipped."""
        data, recipe = self._evaluator.data, self._recipe
        torch.manual_seed(int(generator(recipe, STRATEGY, step, 0).integers(2**63)))
        x_BCHW, targets_BK = mix(normalize(raw.views[0], data), raw.labels_B, recipe, num_classes=data.num_classes)
        with torch.no_grad():
            soft_BK = self._teacher(x_BCHW).softmax(dim=1)
        # A copy, because blocks that stay fp32 are shared with what is simulated.
        simulated = self._evaluator.simulated(copy.deepcopy(self._network), self._policy, ranges)
        logits_BK, share = simulated(x_BCHW), recipe.teacher_weight
        loss = share * DIVERGENCES[recipe.divergence](logits_BK, soft_BK)
        loss = loss + (1 - share) * F.cross_entropy(logits_BK, targets_BK)
        loss.backward()
        for parameter, quantized in zip(self._network.parameters(), simulated.parameters(), strict=True):
            parameter.grad = quantized.grad
        norm = nn.utils.clip_grad_norm_(self._network.parameters(), recipe.max_grad_norm)
        if not (loss.isfinite() and norm.isfinite()):
            return None
        self.optimizer.step()
        return loss.item()
