"""What finetuning remembers between two epochs: weights, the optimizer's moments and the history, in one file."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from nas.errors import UserError
from nas.training.state import save_checkpoint
from search_spaces import Network

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""AdamW's state of one parameter."""


def save_epoch(
    path: Path,
    network: Network,
    optimizer: torch.optim.AdamW,
    about: dict[str, Any],
    history: list[dict[str, float]],
) -> None:
    """Write the file, whole or not at all; `about` says what it belongs to. UserError on a full disk."""
    tensors = {f"weights/{name}": parameter.detach() for name, parameter in network.named_parameters()}
    for name, parameter in network.named_parameters():
        tensors |= {f"{moment}/{name}": value for moment, value in optimizer.state[parameter].items()}
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_checkpoint(path, whole, {"finetuning": json.dumps({"about": about, "history": history})})


@torch.no_grad()
def load_epochs(
    path: Path, network: Network, optimizer: torch.optim.AdamW, about: dict[str, Any]
) -> list[dict[str, float]]:
    """Read a checkpoint into network and optimizer; returns the history, which is empty without a file.

    Raises:
        UserError: the file is damaged, or belongs to another training.
    """
    if not path.exists():
        return []
    try:
        with safe_open(path, framework="pt") as file:
            content = json.loads((file.metadata() or {})["finetuning"])
            if content["about"] != json.loads(json.dumps(about)):
                raise UserError(f"checkpoint '{path}' is of another finetuning; remove it, or --redo finetune")
            names = set(file.keys())
            for name, parameter in network.named_parameters():
                parameter.copy_(file.get_tensor(f"weights/{name}"))
                found = [moment for moment in MOMENTS if f"{moment}/{name}" in names]
                state = {moment: file.get_tensor(f"{moment}/{name}") for moment in found}
                optimizer.state[parameter] = {
                    m: value if m == "step" else torch.empty_like(parameter).copy_(value) for m, value in state.items()
                }
    except (OSError, SafetensorError, RuntimeError, KeyError, json.JSONDecodeError) as error:
        raise UserError(
            f"checkpoint '{path}' can't be read ({error}); remove it and run the same command again"
        ) from None
    return list(content["history"])
