"""One block of every kind, and of every variant that computes something else, for tests."""

import torch
from torch import nn

from search_spaces import BlockSpec
from search_spaces.blocks import Port

C, H = 32, 8
FEATURES = Port(shape=(C, H, H))
IMAGE = Port(shape=(3, 30, 30))

CASES = {
    "pooling": BlockSpec(name="a", kind="pooling", reads=(FEATURES,)),
    "conv3": BlockSpec(name="a", kind="conv", args=(("kernel", 3),), reads=(FEATURES,)),
    "conv5": BlockSpec(name="a", kind="conv", args=(("kernel", 5),), reads=(FEATURES,)),
    "attention": BlockSpec(name="a", kind="attention", args=(("head_dim", 16),), reads=(FEATURES,)),
    "attention of averages": BlockSpec(
        name="a", kind="attention", args=(("head_dim", 16), ("reduction", 2)), reads=(FEATURES,)
    ),
    "linear attention": BlockSpec(name="a", kind="linear_attention", args=(("head_dim", 16),), reads=(FEATURES,)),
    "mlp": BlockSpec(name="a", kind="mlp", args=(("ratio", 3),), reads=(FEATURES,)),
    "gated mlp": BlockSpec(name="a", kind="gated_mlp", args=(("ratio", 2),), reads=(FEATURES,)),
    "stem, stride 1": BlockSpec(name="a", kind="stem", args=(("channels", 16), ("stride", 1)), reads=(IMAGE,)),
    "stem, stride 2": BlockSpec(name="a", kind="stem", args=(("channels", 16), ("stride", 2)), reads=(IMAGE,)),
    "downsample": BlockSpec(name="a", kind="downsample", args=(("channels", 48),), reads=(FEATURES,)),
    "downsample, odd": BlockSpec(name="a", kind="downsample", args=(("channels", 48),), reads=(Port(shape=(C, 7, 7)),)),
    "head": BlockSpec(name="a", kind="head", args=(("num_classes", 10),), reads=(FEATURES,)),
}


@torch.no_grad()
def randomize(module: nn.Module, seed: int = 0) -> None:
    """Batch-norm statistics and scales as they may be after training, from a generator of their own."""
    generator = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.running_mean, norm.bias):
                tensor.copy_(torch.empty_like(tensor).normal_(generator=generator) * 0.3)
            for tensor in (norm.running_var, norm.weight):
                tensor.copy_(torch.empty_like(tensor).uniform_(0.5, 2, generator=generator))
