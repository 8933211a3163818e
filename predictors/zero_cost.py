"""Scores of networks that nobody trained: synflow, NASWOT, gradient norm, and DeepMAD's entropy. Higher is better.

A score takes a freshly initialised network, a batch of normalised images and their labels, and leaves the network as it
is. Those of one batch are comparable among networks of one space and batch, not otherwise.
"""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from predictors.entropy import entropy
from search_spaces import Architecture, Network, SearchSpace
from search_spaces.plugins import named

Score = Callable[[Network, torch.Tensor, torch.Tensor], float]
"""Network, images (B, C, H, W), labels (B,) -> score."""

ACTIVATIONS = frozenset(
    (
        *(F.relu, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_, F.relu6),
        *(F.leaky_relu, F.elu, F.gelu, F.silu, F.mish, F.hardswish),
    )
)
"""Non-linearities whose units NASWOT counts: those that are nearly 0 below 0. Softmax and sigmoids don't count."""


def synflow(network: nn.Module, images_BCHW: torch.Tensor, labels_B: torch.Tensor) -> float:
    """Log of the synaptic flow (Tanaka et al. 2020): sum of |weight x gradient| over all matrices and kernels.

    The gradient is that of the sum of the outputs for one image of ones, in double precision, of the linearised
    network: weights by their absolute values, no biases, batch norm neutral. Activations of positive numbers are
    linear, attention averages values; a product of two activations (a gate) is replaced by their mean. The log keeps
    the ranking. Of the images only the shape is used.
    """
    network = copy.deepcopy(network).double().eval()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.reset_parameters()
    matrices = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            parameter.abs_()
    ones_1CHW = torch.ones(1, *images_BCHW.shape[1:], dtype=torch.float64)
    with _LinearGates():
        total = network(ones_1CHW).sum()
    gradients = torch.autograd.grad(total, matrices, allow_unused=True)
    pairs = zip(matrices, gradients, strict=True)
    return math.log(sum((w * g).abs().sum().item() for w, g in pairs if g is not None))


def naswot(network: nn.Module, images_BCHW: torch.Tensor, labels_B: torch.Tensor) -> float:
    """Log determinant of the kernel of activation codes (Mellor et al. 2021); -inf where two images have equal codes.

    An image's code has a bit for each unit that feeds one of `ACTIVATIONS`: whether it is positive. The kernel of two
    images is the number of bits that agree. Batch norm uses the statistics of the batch.
    """
    with torch.no_grad(), _Codes(len(images_BCHW)) as codes:
        copy.deepcopy(network).train()(images_BCHW)
    return float(torch.linalg.slogdet(codes.kernel_BB).logabsdet)


def grad_norm(network: nn.Module, images_BCHW: torch.Tensor, labels_B: torch.Tensor) -> float:
    """Sum of the norms of the matrices' and kernels' gradients of the cross-entropy (Abdelfattah et al. 2021)."""
    network = copy.deepcopy(network).train()
    loss = F.cross_entropy(network(images_BCHW), labels_B)
    matrices = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    gradients = torch.autograd.grad(loss, matrices, allow_unused=True)
    return float(sum(gradient.norm().item() for gradient in gradients if gradient is not None))


def network_entropy(network: Network, images_BCHW: torch.Tensor, labels_B: torch.Tensor) -> float:
    """DeepMAD's entropy (`predictors.entropy`); images and labels are not used."""
    return entropy(network.specs)


SCORES: Mapping[str, Score] = {
    "synflow": synflow,
    "naswot": naswot,
    "grad_norm": grad_norm,
    "entropy": network_entropy,
}


def get_score(name: str) -> Score:
    """A score by name, or by dotted path `my_package.scores:mine`; SpaceError when there is none."""
    found: Score = named("score", name, SCORES)
    return found


def score(
    name: str,
    space: SearchSpace,
    architecture: Architecture,
    images_BCHW: torch.Tensor,
    labels_B: torch.Tensor,
    *,
    seed: int,
) -> float:
    """Score of an architecture, initialised by `seed`; equal arguments give equal scores."""
    function = get_score(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = space.build(architecture)
    return function(network, images_BCHW, labels_B)


class _Codes(TorchFunctionMode):
    """Sums the kernel of activation codes over the activations that are called."""

    def __init__(self, num_images: int) -> None:
        super().__init__()
        self.kernel_BB = torch.zeros(num_images, num_images, dtype=torch.float64)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in ACTIVATIONS:
            code_BU = (args[0].flatten(1) > 0).float()
            self.kernel_BB += code_BU @ code_BU.T + (1 - code_BU) @ (1 - code_BU).T
        return func(*args, **(kwargs or {}))


class _LinearGates(TorchFunctionMode):
    """Replaces the product of two activations by their mean: linear, and a map of positive numbers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.mul, torch.Tensor.mul) and all(_is_activation(x) for x in args):
            return (args[0] + args[1]) / 2
        return func(*args, **(kwargs or {}))


def _is_activation(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.requires_grad and not isinstance(x, nn.Parameter)
