"""Start a supernet from one trained network that is a point of its space."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from nas.errors import UserError
from nas.supernet import Supernet
from search_spaces import Architecture, SearchSpace
from search_spaces.importance import sort_channels

TRAINED = "trained.safetensors"
"""Weights of an exported model in the form that is trained: with norms of their own, not folded."""


def initialise(supernet: Supernet, source: str) -> Architecture:
    """Spread a trained network's weights into the shared ones, its most important channels first; returns which it is.

    Shared weights that the network doesn't have stay as they are.

    Args:
        source: a folder made by `nas export`, or `timm:<name>` for a network that the space knows as one of its points.

    Raises:
        UserError, SpaceError: there is no such network, it can't be loaded, or it is not of this space.
    """
    name = source.removeprefix("timm:")
    load = _load_timm if name != source else _load_folder
    architecture, weights = load(supernet.space, name)
    network = supernet.space.build(architecture)
    try:
        network.load_state_dict(weights)
    except RuntimeError:
        raise UserError(
            f"'{source}' has other tensors than its architecture in '{supernet.space.name}'; export it again"
        ) from None
    supernet.put(architecture, sort_channels(network))
    return architecture


def _load_folder(space: SearchSpace, source: str) -> tuple[Architecture, dict[str, torch.Tensor]]:
    folder = Path(source)
    try:
        content = json.loads((folder / "architecture.json").read_text(encoding="utf-8"))
        found = Architecture.from_json(content["architecture"])
        weights = load_file(folder / TRAINED)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"'{source}' is no trained network ({reason}); give a folder made by `nas export`") from None
    if found.space != space.name:
        raise UserError(f"'{source}' is a network of space '{found.space}', not of '{space.name}'; give one of its own")
    return space.architecture(found.genotype), weights


def _load_timm(space: SearchSpace, name: str) -> tuple[Architecture, dict[str, torch.Tensor]]:
    import timm  # slow to import

    if not timm.is_model(name):
        raise UserError(f"timm has no network '{name}'; timm.list_models() names those it has")
    shape: dict[str, Any] = {"num_classes": space.num_classes, "in_chans": space.num_channels}
    space.point_of(timm.create_model(name, **shape), name)  # before anything is downloaded
    try:
        model = timm.create_model(name, pretrained=True, **shape)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"weights of timm's '{name}' can't be had ({reason}); download them first") from None
    return space.point_of(model, name)
