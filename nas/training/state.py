"""Everything a training run has to remember between two steps, in flat buffers that one file holds."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from nas.errors import UserError
from nas.processes import device
from nas.supernet import Supernet
from nas.training.options import TrainOptions
from nas.training.strategies import Strategy
from search_spaces import SearchSpace
from search_spaces.blocks import block_class
from search_spaces.fixed import FixedSpace

BETAS = (0.9, 0.99)
"""AdamW's; the second is below the usual 0.999 because a run may have only some hundred steps."""

PROGRESS = ("step", "seconds", "history", "num_skipped", "damaged")
"""What a checkpoint says of the state besides its tensors."""


@dataclass(kw_only=True)
class TrainState:
    """Weights, their average, the optimizer's moments, and how far training has come."""

    supernet: Supernet
    strategy: Strategy
    optimizer: torch.optim.AdamW
    buffers: dict[str, torch.Tensor]
    """Tensors in use, under the names they have in a checkpoint.

    `weights`, `ema`, `exp_avg`, `exp_avg_sq` have one number a shared weight, `updates` one a trained tensor;
    `heads.*` and `memory.*` are the strategy's.
    """
    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    """A row a checkpoint: step, epoch, loss, learning_rate, share of the time spent waiting for images, skipped steps;
    after an epoch the accuracy of the networks that are watched."""
    num_skipped: int = 0
    """Steps whose loss or gradient was not finite, and which changed nothing."""
    damaged: list[str] = field(default_factory=list)
    """Images that couldn't be decoded, up to a limit."""


def new_state(supernet: Supernet, strategy: Strategy, options: TrainOptions) -> TrainState:
    """Before the first step, from the supernet's weights; the optimizer works on the buffers themselves."""
    heads = dict(strategy.heads.to(supernet.device).named_parameters())
    trained = [*supernet.shared.values(), *heads.values()]
    buffers = {
        "weights": supernet.flat,
        "ema": supernet.flat.clone(),
        "exp_avg": torch.zeros_like(supernet.flat),
        "exp_avg_sq": torch.zeros_like(supernet.flat),
        "updates": torch.zeros(len(trained), device=supernet.device),
    }
    moments = [buffers[name].split([p.numel() for p in supernet.shared.values()]) for name in ("exp_avg", "exp_avg_sq")]
    for name, parameter in heads.items():
        buffers[f"heads.{name}"] = parameter.detach()
        for moment in ("exp_avg", "exp_avg_sq"):
            buffers[f"heads.{name}.{moment}"] = torch.zeros_like(parameter)
    means = [*moments[0], *(buffers[f"heads.{name}.exp_avg"] for name in heads)]
    squares = [*moments[1], *(buffers[f"heads.{name}.exp_avg_sq"] for name in heads)]
    optimizer = torch.optim.AdamW(
        _groups(supernet, list(heads.values()), options), lr=options.learning_rate, betas=BETAS, fused=True
    )
    for index, (parameter, mean, square) in enumerate(zip(trained, means, squares, strict=True)):
        optimizer.state[parameter] = {
            "step": buffers["updates"][index],
            "exp_avg": mean.view_as(parameter),
            "exp_avg_sq": square.view_as(parameter),
        }
    buffers |= {f"memory.{name}": tensor for name, tensor in strategy.memory.items()}
    return TrainState(supernet=supernet, strategy=strategy, optimizer=optimizer, buffers=buffers)


def _groups(supernet: Supernet, heads: list[torch.nn.Parameter], options: TrainOptions) -> list[dict[str, Any]]:
    """Weights decay; norms, biases and heads don't, and norms and biases may have another rate."""
    unscaled = unscaled_keys(supernet)
    weights = [p for key, p in supernet.shared.items() if key not in unscaled]
    scales = [p for key, p in supernet.shared.items() if key in unscaled]
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": options.weight_decay},
        {"params": scales, "weight_decay": 0.0, "lr": options.learning_rate * options.scale_rate},
        {"params": heads, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


@torch.no_grad()
def new_supernet(space: SearchSpace, *, entanglement: str = "full") -> Supernet:
    """Random weights by torch's seed; a network alone has those that the supernet of its whole space would lend it.

    Closing scales are zero: a block that few sub-networks have trained yet then disturbs none of them.
    """
    if isinstance(space, FixedSpace):
        whole, supernet = new_supernet(space.whole), Supernet(space, device=device())
        supernet.put(space.largest(), whole.extract(space.largest()))
        return supernet
    supernet = Supernet(space, entanglement=entanglement, device=device())
    for spec in space.block_specs():
        if name := block_class(spec.kind).closing_scale:
            supernet.shared[f"{supernet.weight_key(spec)}/{name}"].detach().zero_()
    return supernet


def unscaled_keys(supernet: Supernet) -> set[str]:
    """Shared tensors of norms and biases, which weight decay leaves alone."""
    return {
        f"{supernet.weight_key(spec)}/{name}"
        for spec in supernet.space.block_specs()
        for name, parameter in spec.build().named_parameters()
        if parameter.ndim <= 1
    }


def save_state(state: TrainState, path: Path, about: dict[str, Any]) -> None:
    """Write a checkpoint; `about` says what it belongs to."""
    progress = {name: getattr(state, name) for name in PROGRESS}
    save_checkpoint(path, state.buffers, {"training": json.dumps(about | progress)})


def save_checkpoint(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write one safetensors file, whole or not at all. UserError on a full disk."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, part, metadata=metadata)
        part.replace(path)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise UserError(
            f"checkpoint '{path}' can't be written ({error}); make room and run the same command again"
        ) from None


def read_about(path: Path) -> dict[str, Any]:
    """What a checkpoint belongs to and how far it is; UserError when the file is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["training"])
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise damaged_checkpoint(path, error) from None
    return dict(about)


@torch.no_grad()
def restore_state(state: TrainState, path: Path) -> None:
    """Read a checkpoint into `state`; UserError when it is damaged or does not fit."""
    about = read_about(path)
    try:
        with safe_open(path, framework="pt") as file:
            for name, buffer in state.buffers.items():
                buffer.copy_(file.get_tensor(name))
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise damaged_checkpoint(path, error) from None
    for name in PROGRESS:
        setattr(state, name, about[name])


def damaged_checkpoint(path: Path, error: Exception) -> UserError:
    return UserError(f"checkpoint '{path}' can't be read ({error}); remove it and train again")
