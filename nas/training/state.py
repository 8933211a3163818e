"""Everything a training run has to remember between two steps, in flat buffers that one file holds."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from nas.errors import UserError
from nas.supernet import Supernet
from nas.training.options import TrainOptions
from search_spaces import SearchSpace
from search_spaces.blocks import block_class

BETAS = (0.9, 0.99)
"""AdamW's; the second is below the usual 0.999 because a run may have only some hundred steps."""


@dataclass(kw_only=True)
class TrainState:
    """Weights, their average, the optimizer's moments, and how far training has come."""

    supernet: Supernet
    optimizer: torch.optim.AdamW
    buffers: dict[str, torch.Tensor]
    """`weights`, `ema`, `exp_avg`, `exp_avg_sq` (one number a shared weight) and `updates` (one a shared tensor)."""
    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def new_state(supernet: Supernet, options: TrainOptions) -> TrainState:
    """State before the first step, from the supernet's weights; the optimizer works on the buffers themselves."""
    buffers = {
        "weights": supernet.flat,
        "ema": supernet.flat.clone(),
        "exp_avg": torch.zeros_like(supernet.flat),
        "exp_avg_sq": torch.zeros_like(supernet.flat),
        "updates": torch.zeros(len(supernet.shared)),
    }
    unscaled = unscaled_keys(supernet.space)
    groups = [
        {
            "params": [p for key, p in supernet.shared.items() if key not in unscaled],
            "weight_decay": options.weight_decay,
        },
        {"params": [p for key, p in supernet.shared.items() if key in unscaled], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=options.learning_rate, betas=BETAS, fused=True
    )
    sizes = [parameter.numel() for parameter in supernet.shared.values()]
    moments = zip(*(buffers[name].split(sizes) for name in ("exp_avg", "exp_avg_sq")), strict=True)
    for index, (parameter, (mean, square)) in enumerate(zip(supernet.shared.values(), moments, strict=True)):
        optimizer.state[parameter] = {
            "step": buffers["updates"][index],
            "exp_avg": mean.view_as(parameter),
            "exp_avg_sq": square.view_as(parameter),
        }
    return TrainState(supernet=supernet, optimizer=optimizer, buffers=buffers)


@torch.no_grad()
def start_as_identity(supernet: Supernet) -> None:
    """Set the closing scales to zero: a block that few sub-networks have trained yet then disturbs none of them."""
    for spec in supernet.space.block_specs():
        if name := block_class(spec.kind).closing_scale:
            supernet.shared[f"{spec.weight_key}/{name}"].zero_()


def unscaled_keys(space: SearchSpace) -> set[str]:
    """Shared tensors of norms and biases, which weight decay leaves alone."""
    return {
        f"{spec.weight_key}/{name}"
        for spec in space.block_specs()
        for name, parameter in spec.build().named_parameters()
        if parameter.ndim <= 1
    }


def save_state(state: TrainState, path: Path, about: dict[str, Any]) -> None:
    """Write one safetensors file, whole or not at all; `about` says what it belongs to. UserError on a full disk."""
    progress = {"step": state.step, "seconds": state.seconds, "history": state.history}
    part = path.with_name(path.name + ".part")
    try:
        save_file(state.buffers, part, metadata={"training": json.dumps(about | progress)})
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
    except (OSError, SafetensorError, RuntimeError) as error:
        raise damaged_checkpoint(path, error) from None
    state.step, state.seconds, state.history = about["step"], about["seconds"], about["history"]


def damaged_checkpoint(path: Path, error: Exception) -> UserError:
    return UserError(f"checkpoint '{path}' can't be read ({error}); remove it and train again")
