"""The training loop. A step is a pure function of the seed and its number, so that a killed run continues exactly."""

import importlib.metadata
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch.optim.swa_utils import get_ema_multi_avg_fn

from nas.data import ImageData
from nas.errors import UserError
from nas.evaluation import accuracy_pct, normalize, recalibrate
from nas.progress import Progress
from nas.supernet import Supernet
from nas.training.augmentation import augment
from nas.training.options import TrainOptions
from nas.training.state import TrainState, new_state, read_about, restore_state, save_state, start_as_identity
from nas.training.strategies import Strategy, get_strategy
from search_spaces import SearchSpace

WEIGHTS, REPORT, CHECKPOINT = "supernet.safetensors", "supernet.json", "checkpoint.safetensors"


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

    Raises:
        UserError: the folder holds work on another space, data or options; a loss is not finite; the disk is full.
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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        supernet = Supernet(space)
    start_as_identity(supernet)
    num_finished = _finished_epochs(folder, about, options)
    if num_finished == options.num_epochs:
        supernet.load(folder / WEIGHTS)
        (folder / CHECKPOINT).unlink(missing_ok=True)
        return supernet

    strategy = get_strategy(options)
    state = _starting_state(supernet, data, folder, about, options, num_finished)
    _run_steps(
        state, data, strategy, options, save=lambda: save_state(state, folder / CHECKPOINT, about), progress=progress
    )
    supernet.flat.copy_(state.buffers["ema"])
    accuracy = _accuracy(supernet, data)
    _finish(supernet, folder, about | _summary(state, accuracy))
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


def steps_per_epoch(data: ImageData, options: TrainOptions) -> int:
    """Whole batches of the training split; what is left over waits for the next epoch's order."""
    return max(1, len(data.train) // options.batch_size)


def _run_steps(
    state: TrainState,
    data: ImageData,
    strategy: Strategy,
    options: TrainOptions,
    *,
    save: Callable[[], None],
    progress: Progress | None,
) -> None:
    num_epoch_steps = steps_per_epoch(data, options)
    num_steps = options.num_epochs * num_epoch_steps
    schedule = learning_rates(state.optimizer, num_steps, options)
    losses: list[float] = []
    start_s = time.monotonic() - state.seconds
    if progress:
        progress(state.step, num_steps)
    while state.step < num_steps:
        epoch = state.step // num_epoch_steps
        schedule.step_update(state.step)
        losses.append(_step(state, data, strategy, options, num_epoch_steps))
        state.step += 1
        if state.step % options.checkpoint_steps == 0 or state.step == num_steps:
            rate = state.optimizer.param_groups[0]["lr"]
            row = {"step": state.step, "epoch": epoch, "loss": float(np.mean(losses)), "learning_rate": rate}
            state.history.append(row)
            state.seconds = time.monotonic() - start_s
            losses.clear()
            save()
        if progress:
            progress(state.step, num_steps, f"loss {losses[-1] if losses else state.history[-1]['loss']:.2f}")


def _step(state: TrainState, data: ImageData, strategy: Strategy, options: TrainOptions, num_epoch_steps: int) -> float:
    """One optimizer step; returns its loss."""
    epoch, position = divmod(state.step, num_epoch_steps)
    order_B = np.random.default_rng([options.seed, 0, epoch]).permutation(len(data.train))
    chosen_B = torch.from_numpy(order_B[position * options.batch_size : (position + 1) * options.batch_size])
    rng = np.random.default_rng([options.seed, 1, state.step])
    images_BCHW = augment(data.train.images_BCHW[chosen_B], flip=options.flip, max_shift=options.max_shift, rng=rng)
    state.supernet.zero_grad()
    loss = strategy.step(
        state.supernet,
        normalize(images_BCHW, data),
        data.train.labels_B[chosen_B],
        done=state.step / (options.num_epochs * num_epoch_steps),
        rng=rng,
    ).item()
    if not np.isfinite(loss):
        raise UserError(
            f"the loss of training step {state.step} is {loss}; lower the learning rate, {options.learning_rate:g} now"
        )
    state.optimizer.step()
    decay = min(options.ema_decay, (1 + state.step) / (10 + state.step))
    get_ema_multi_avg_fn(decay)([state.buffers["ema"]], [state.buffers["weights"]], None)
    return float(loss)


def _starting_state(
    supernet: Supernet, data: ImageData, folder: Path, about: dict[str, Any], options: TrainOptions, num_finished: int
) -> TrainState:
    """From the checkpoint when there is one, else from a finished shorter run, else from the start."""
    if (folder / CHECKPOINT).exists():
        started = read_about(folder / CHECKPOINT)
        _check_same(started, about, options, folder / CHECKPOINT)
        state = new_state(supernet, options)
        restore_state(state, folder / CHECKPOINT)
        num_steps = options.num_epochs * steps_per_epoch(data, options)
        if state.step > num_steps:
            raise UserError(
                f"checkpoint '{folder / CHECKPOINT}' is at step {state.step} of training, beyond the {num_steps} of "
                f"num_epochs={options.num_epochs}; raise num_epochs or remove the file"
            )
        return state
    if num_finished == 0:
        return new_state(supernet, options)
    supernet.load(folder / WEIGHTS)
    state = new_state(supernet, options)
    report = _read_report(folder / REPORT)
    state.step, state.seconds = num_finished * steps_per_epoch(data, options), report["seconds"]
    state.history = report["history"]
    return state


def _finished_epochs(folder: Path, about: dict[str, Any], options: TrainOptions) -> int:
    """Epochs of the finished supernet in `folder`, 0 without one; UserError when it isn't what is asked for."""
    if not ((folder / REPORT).exists() and (folder / WEIGHTS).exists()):
        return 0
    report = _read_report(folder / REPORT)
    _check_same(report, about, options, folder / WEIGHTS)
    num_epochs = int(report["options"]["num_epochs"])
    if num_epochs > options.num_epochs:
        raise UserError(
            f"supernet '{folder / WEIGHTS}' has num_epochs={num_epochs}, more than the {options.num_epochs} asked for; "
            f"ask for at least {num_epochs} or use another folder"
        )
    return num_epochs


def _check_same(found: dict[str, Any], wanted: dict[str, Any], options: TrainOptions, path: Path) -> None:
    for name, what in (("space_fingerprint", "search space"), ("data_fingerprint", "data")):
        if found.get(name) != wanted[name]:
            raise UserError(f"'{path}' was trained with another {what}; remove it or use another folder")
    earlier = TrainOptions.from_json(found["options"])
    if differences := options.differences(earlier):
        name = differences[0]
        raise UserError(
            f"'{path}' was trained with {name}={getattr(earlier, name)}, not {getattr(options, name)}; "
            "use the same options or another folder"
        )


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


def _read_report(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' can't be read ({error}); remove it and train again") from None


def _accuracy(supernet: Supernet, data: ImageData) -> dict[str, dict[str, float]]:
    """Of the smallest, middle and largest network, each with norm statistics of its own."""
    space, found = supernet.space, {}
    for name, architecture in (
        ("smallest", space.smallest()),
        ("middle", space.middle()),
        ("largest", space.largest()),
    ):
        network = recalibrate(supernet.extract(architecture), data)
        found[name] = {
            f"{split}_pct": accuracy_pct(network, data.splits[split], data) for split in ("validation", "test")
        }
    return found


def _summary(state: TrainState, accuracy: dict[str, dict[str, float]]) -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in ("torch", "timm")}
    return {"history": state.history, "accuracy": accuracy, "seconds": state.seconds, "versions": versions}


def _finish(supernet: Supernet, folder: Path, report: dict[str, Any]) -> None:
    """Write the weights, then the report that declares them finished, then drop the checkpoint."""
    part = folder / f"{REPORT}.part"
    try:
        supernet.save(folder / WEIGHTS)
        part.write_text(json.dumps(report, indent=1))
        part.replace(folder / REPORT)
    except (OSError, SafetensorError) as error:
        for name in (WEIGHTS, REPORT):
            (folder / f"{name}.part").unlink(missing_ok=True)
        raise UserError(
            f"the supernet can't be written to '{folder}' ({error}); make room and run the same command again"
        ) from None
    (folder / CHECKPOINT).unlink(missing_ok=True)
