"""Frozen teachers from outside the space: timm's pretrained models, or a user's own module."""

from collections.abc import Callable
from typing import Any

import timm
import torch
from timm.layers.format import Format
from torch import nn

from nas.errors import UserError
from nas.processes import device
from nas.training.options import TrainOptions
from search_spaces import SearchSpace
from search_spaces.plugins import imported


def load_teacher(options: TrainOptions, space: SearchSpace, *, as_stages: bool = False) -> nn.Module:
    """The teacher that the options name, frozen and in eval mode, on the device that trains.

    It takes normalised images of the space's size and gives logits (B, classes), or with `as_stages` a list of feature
    maps (B, C, H, W), first to last. UserError when there is none, or it can't be loaded.
    """
    source, separator, name = options.teacher.partition(":")
    if not separator:
        raise UserError(
            f"teacher={options.teacher!r} is no teacher, which strategy {options.strategy} needs; write it as "
            "`timm:<name>` or `package.module:function`"
        )
    teacher = _from_timm(name, space, as_stages) if source == "timm" else _from_function(source, name)
    return teacher.to(device()).eval().requires_grad_(False)


def check_logits(teacher: nn.Module, options: TrainOptions, space: SearchSpace) -> None:
    """UserError unless the teacher gives one logit a class of the space."""
    shape = tuple(probe(teacher, options, space).shape)
    if shape != (2, space.num_classes):
        raise UserError(
            f"teacher '{options.teacher}' gives outputs of shape {shape} for two images, the data has "
            f"{space.num_classes} classes; name a teacher that was trained on them"
        )


def pooled_features(teacher: nn.Module, x_BCHW: torch.Tensor) -> torch.Tensor:
    """Mean of the teacher's `forward_features` over space or tokens (B, D); its own pooling where it is timm's."""
    features = _called(teacher.forward_features)(x_BCHW)
    if type(teacher).__module__.startswith("timm."):
        return _called(teacher.forward_head)(features, pre_logits=True)
    return features if features.ndim == 2 else features.mean(dim={3: (1,), 4: (2, 3)}[features.ndim])


def stage_maps(teacher: nn.Module, x_BCHW: torch.Tensor, num_stages: int) -> list[torch.Tensor]:
    """One of the teacher's maps for each of the stages: the one at the same share of the depth."""
    maps = teacher(x_BCHW)
    return [maps[-(-(stage + 1) * len(maps) // num_stages) - 1] for stage in range(num_stages)]


@torch.no_grad()
def probe(function: Callable[[torch.Tensor], Any], options: TrainOptions, space: SearchSpace) -> Any:
    """What a function of the teacher gives for two black images; UserError when it can't take them."""
    x_BCHW = torch.zeros(2, space.num_channels, space.image_size, space.image_size, device=device())
    try:
        return function(x_BCHW)
    except (RuntimeError, ValueError, TypeError, AssertionError, AttributeError, KeyError) as error:
        raise UserError(
            f"teacher '{options.teacher}' can't be used on images of {tuple(x_BCHW.shape[1:])} "
            f"({str(error).splitlines()[0]}); name one that takes them"
        ) from None


def _from_timm(name: str, space: SearchSpace, as_stages: bool) -> nn.Module:
    wanted: dict[str, Any] = {"features_only": True} if as_stages else {}
    try:
        teacher = timm.create_model(name, pretrained=True, in_chans=space.num_channels, **wanted)
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(f"teacher 'timm:{name}' can't be loaded ({str(error).splitlines()[0]}); name another") from None
    if as_stages and teacher.output_fmt != Format.NCHW:
        raise UserError(f"teacher 'timm:{name}' gives maps with channels last; name one that gives them first")
    return teacher


def _from_function(module: str, attribute: str) -> nn.Module:
    teacher = imported("teacher", f"{module}:{attribute}", error=UserError)()
    if not isinstance(teacher, nn.Module):
        raise UserError(f"teacher '{module}:{attribute}' gives {type(teacher).__name__}; return a torch.nn.Module")
    return teacher


def _called(method: Any) -> Callable[..., torch.Tensor]:
    """A method that torch types as tensor or module."""
    return method
