"""The training loop. A step is a pure function of the seed and its number, so that a killed run continues exactly."""

import importlib.metadata
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch.optim.swa_utils import get_ema_multi_avg_fn

from nas.data import ImageData
from nas.errors import UserError
from nas.evaluation import normalize
from nas.processes import is_main, own_shards, sum_over_all, wait_for_all
from nas.progress import Progress
from nas.supernet import Supernet
from nas.training.augmentation import mix
from nas.training.batches import STRATEGY, RawBatch, generator, load_batches, steps_per_epoch
from nas.training.folder import CHECKPOINT, REPORT, WEIGHTS, check_same, finish, finished_epochs, read_report
from nas.training.options import TrainOptions
from nas.training.pretrained import initialise
from nas.training.state import TrainState, new_state, new_supernet, read_about, restore_state, save_state
from nas.training.strategies import Batch, get_strategy
from nas.training.watch import Tracker, accuracies, glance
from search_spaces import SearchSpace

MAX_SKIPPED_IN_A_ROW = 5
"""Steps without a finite loss and gradient that are passed over before training stops."""
MAX_DAMAGED_SHARE = 1e-3
"""Share of the training images that may be unreadable; others stand in for them."""


def train_supernet(
    space: SearchSpace,
    data: ImageData,
    folder: Path,
    *,
    options: TrainOptions | None = None,
    progress: Progress | None = None,
) -> Supernet:
    """Train a supernet, or continue where an earlier call was interrupted, and return it with its averaged weights.

    Writes `supernet.safetensors` and `supernet.json` to `folder`, and `checkpoint.safetensors` while it lasts. A
    finished supernet with equal options is returned at once. With more epochs it is trained on: from the averaged
    weights, with fresh optimizer moments, on the learning rates that the longer run has from that step on.

    Called in every process of `accelerate launch`, they share the shards of each step; one of them writes.

    A step whose loss or gradient is not finite changes nothing; an image that can't be decoded is replaced.

    Raises:
        UserError: the folder holds work on another space, data or options; several losses in a row are not finite; too
            many images are damaged; the disk is full.
    """
    options = options or TrainOptions()
    _check_fit(space, data)
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "space": space.name,
        "space_fingerprint": space.fingerprint,
        "data_fingerprint": data.fingerprint,
        "num_channels": space.num_channels,
        "num_classes": space.num_classes,
        "options": options.to_json(),
    }
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        supernet = new_supernet(space, entanglement=options.entanglement)
        strategy = get_strategy(options, space)
        if options.init:
            initialise(supernet, options.init)
        num_finished = finished_epochs(folder, about, options)
        if num_finished == options.num_epochs:
            supernet.load(folder / WEIGHTS)
            (folder / CHECKPOINT).unlink(missing_ok=True)
            return supernet
        state = new_state(supernet, strategy, options)
        _restore(state, data, folder, about, options, num_finished)
        _Loop(state, data, folder, about, options, progress).run()
    supernet.flat.copy_(state.buffers["ema"])
    if is_main():
        finish(supernet, folder, about | _summary(state, accuracies(supernet, data)))
    wait_for_all()
    return supernet


def learning_rates(optimizer: torch.optim.Optimizer, num_steps: int, options: TrainOptions) -> CosineLRScheduler:
    """Linear warm-up, then half a cosine down to a thousandth; `step_update(step)` sets the rate of any step."""
    return CosineLRScheduler(
        optimizer,
        t_initial=num_steps,
        lr_min=options.learning_rate / 1000,
        warmup_t=round(num_steps * options.warmup_pct / 100),
        warmup_lr_init=options.learning_rate / 100,
        t_in_epochs=False,
    )


def train_step(state: TrainState, data: ImageData, options: TrainOptions, batches: dict[int, RawBatch]) -> float | None:
    """One optimizer step on this process's shards of it; returns its loss, None when it had to be skipped."""
    supernet, strategy = state.supernet, state.strategy
    supernet.zero_grad()
    head_grads = []
    for parameter in strategy.heads.parameters():
        parameter.grad = torch.zeros_like(parameter)
        head_grads.append(parameter.grad)
    done = state.step / (options.num_epochs * steps_per_epoch(data, options))
    losses = torch.zeros((), device=supernet.device)
    for shard, raw in batches.items():
        rng = generator(options, STRATEGY, state.step, shard)
        torch.manual_seed(int(rng.integers(2**63)))
        losses += strategy.step(supernet, _on_device(raw, data, options, supernet.device), done=done, rng=rng)
    supernet.reduce_gradients(sum_over_all, num_shards=options.num_shards)
    for tensor in (losses, *head_grads):
        sum_over_all(tensor)
        tensor /= options.num_shards
    loss, norm = losses.item(), supernet.flat_grad.norm().item()
    if not (np.isfinite(loss) and np.isfinite(norm) and all(grad.isfinite().all() for grad in head_grads)):
        return None
    if options.max_grad_norm and norm > options.max_grad_norm:
        supernet.flat_grad *= options.max_grad_norm / norm
    state.optimizer.step()
    decay = min(options.ema_decay, (1 + state.step) / (10 + state.step))
    get_ema_multi_avg_fn(decay)([state.buffers["ema"]], [state.buffers["weights"]], None)
    strategy.after_update(supernet)
    return loss


def _on_device(raw: RawBatch, data: ImageData, options: TrainOptions, on: torch.device) -> Batch:
    views = [normalize(view_BCHW.to(on, non_blocking=True), data) for view_BCHW in raw.views]
    x_BCHW, targets_BK = mix(views[0], raw.labels_B.to(on), options, num_classes=data.num_classes)
    return Batch(x_BCHW=x_BCHW, targets_BK=targets_BK, view_BCHW=views[1] if len(views) > 1 else None)


class _Loop:
    """Steps to the end of training, with checkpoints, a look at some networks after every epoch, and progress."""

    def __init__(
        self,
        state: TrainState,
        data: ImageData,
        folder: Path,
        about: dict[str, Any],
        options: TrainOptions,
        progress: Progress | None,
    ):
        self._state, self._data, self._folder, self._about, self._options = state, data, folder, about, options
        self._progress = progress if is_main() else None
        self._num_epoch_steps = steps_per_epoch(data, options)
        self._num_steps = options.num_epochs * self._num_epoch_steps
        self._schedule = learning_rates(state.optimizer, self._num_steps, options)
        self._losses: list[float] = []
        self._input_s, self._since_s = 0.0, 0.0
        self._seen = ""

    def run(self) -> None:
        state, options = self._state, self._options
        shards = own_shards(options.num_shards)
        steps = range(state.step, self._num_steps)
        batches = load_batches(self._data, options, num_views=state.strategy.num_views, shards=shards, steps=steps)
        tracker = Tracker(options, self._folder)
        self._since_s = time.monotonic()
        start_s = self._since_s - state.seconds
        self._report()
        num_skipped_in_a_row = 0
        for raws in self._timed(batches):
            self._schedule.step_update(state.step)
            self._note_damaged(raws)
            loss = train_step(state, self._data, options, dict(zip(shards, raws, strict=True)))
            num_skipped_in_a_row = 0 if loss is not None else num_skipped_in_a_row + 1
            self._check_skipped(num_skipped_in_a_row)
            self._losses += [] if loss is None else [loss]
            state.step += 1
            if state.step % options.checkpoint_steps == 0 or state.step % self._num_epoch_steps == 0:
                state.seconds = time.monotonic() - start_s
                tracker.log(self._row(), step=state.step)
                if is_main():
                    save_state(state, self._folder / CHECKPOINT, self._about)
            self._report()
        tracker.finish()

    def _timed(self, batches: Iterator[list[RawBatch]]) -> Iterator[list[RawBatch]]:
        """Batches, while the time spent waiting for them is counted."""
        while True:
            before_s = time.monotonic()
            raws = next(batches, None)
            self._input_s += time.monotonic() - before_s
            if raws is None:
                return
            yield raws

    def _row(self) -> dict[str, float]:
        """Close a row of the history: what happened since the last one."""
        state, now_s = self._state, time.monotonic()
        row: dict[str, float] = {
            "step": state.step,
            "epoch": (state.step - 1) // self._num_epoch_steps,
            "loss": float(np.mean(self._losses)) if self._losses else float("nan"),
            "learning_rate": state.optimizer.param_groups[0]["lr"],
            "input_pct": 100 * self._input_s / max(now_s - self._since_s, 1e-9),
            "num_skipped": state.num_skipped,
        }
        if self._options.num_watched and state.step % self._num_epoch_steps == 0 and is_main():
            seen = glance(state.supernet, state.buffers["ema"], self._data, num_images=self._options.num_watched)
            self._seen = ", accuracy " + "/".join(f"{value:.0f}" for value in seen.values())
            row |= seen
        state.history.append(row)
        self._losses, self._input_s, self._since_s = [], 0.0, time.monotonic()
        return row

    def _report(self) -> None:
        if self._progress:
            loss = self._losses[-1] if self._losses else next((r["loss"] for r in self._state.history[::-1]), None)
            message = "" if loss is None else f"loss {loss:.2f}{self._seen}"
            self._progress(self._state.step, self._num_steps, message)

    def _check_skipped(self, num_in_a_row: int) -> None:
        self._state.num_skipped += num_in_a_row > 0
        if num_in_a_row > MAX_SKIPPED_IN_A_ROW:
            raise UserError(
                f"{num_in_a_row} steps in a row up to step {self._state.step} had no finite loss or gradient; lower "
                f"the learning rate, {self._options.learning_rate:g} now. The last checkpoint is kept"
            )

    def _note_damaged(self, raws: list[RawBatch]) -> None:
        state = self._state
        fresh = set(itertools.chain.from_iterable(raw.damaged for raw in raws)) - set(state.damaged)
        state.damaged += sorted(fresh)
        if len(state.damaged) > max(10, MAX_DAMAGED_SHARE * len(self._data.train)):
            raise UserError(
                f"{len(state.damaged)} training images can't be decoded, the latest is {state.damaged[-1]}; replace "
                "them. The last checkpoint is kept"
            )


def _restore(
    state: TrainState,
    data: ImageData,
    folder: Path,
    about: dict[str, Any],
    options: TrainOptions,
    num_finished: int,
) -> None:
    """From the checkpoint when there is one, else from a finished shorter run, else nothing."""
    path, num_steps = folder / CHECKPOINT, options.num_epochs * steps_per_epoch(data, options)
    if path.exists():
        check_same(read_about(path), about, options, path)
        restore_state(state, path)
        if state.step > num_steps:
            raise UserError(
                f"checkpoint '{path}' is at step {state.step} of training, beyond the {num_steps} of "
                f"num_epochs={options.num_epochs}; raise num_epochs or remove the file"
            )
    elif num_finished:
        state.supernet.load(folder / WEIGHTS)
        state.buffers["ema"].copy_(state.supernet.flat)
        report = read_report(folder / REPORT)
        state.step, state.seconds = num_finished * steps_per_epoch(data, options), report["seconds"]
        state.history = report["history"]


def _check_fit(space: SearchSpace, data: ImageData) -> None:
    pairs = (
        ("image_size", space.image_size, data.image_size),
        ("num_channels", space.num_channels, data.num_channels),
        ("num_classes", space.num_classes, data.num_classes),
    )
    for name, wanted, found in pairs:
        if wanted != found:
            raise UserError(
                f"{data.name} has {name}={found}, space {space.name} {wanted}; load one of them with the other's"
            )


def _summary(state: TrainState, accuracy: dict[str, dict[str, float]]) -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in ("torch", "timm")}
    return {
        "history": state.history,
        "accuracy": accuracy,
        "seconds": state.seconds,
        "num_skipped": state.num_skipped,
        "damaged": state.damaged,
        "num_threads": torch.get_num_threads(),
        "versions": versions,
    }
