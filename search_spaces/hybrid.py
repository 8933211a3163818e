"""The hybrid CNN-transformer space: stages of blocks, each with a token mixer and a channel mixer of any kind."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from search_spaces.blocks import Port
from search_spaces.errors import SpaceError
from search_spaces.network import BlockSpec
from search_spaces.space import Choice, Genotype, SearchSpace

TOKEN_MIXERS = ("pooling", "conv3", "conv5", "conv7", "linear_attention", "attention")
CHANNEL_MIXERS = ("mlp2", "mlp3", "gated2", "mlp4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One resolution of a hybrid network."""

    widths: tuple[int, ...]
    """Channels, narrowest first; multiples of the space's `head_dim`, or less than it."""
    depths: tuple[int, ...]
    """Blocks, fewest first."""
    reduction: int = 1
    """Window over which attention averages keys and values."""


class HybridSpace(SearchSpace):
    """Stem, stages with searchable width, depth and mixers, overlapping down-samplers between them, head.

    Raises:
        SpaceError: on construction, when attention can't divide a width into heads.
    """

    def __init__(
        self,
        name: str,
        stages: tuple[Stage, ...],
        *,
        image_size: int,
        stem_stride: int,
        head_dim: int,
        num_channels: int = 3,
        num_classes: int = 10,
    ):
        self.name, self.stages, self.image_size = name, stages, image_size
        self.stem_stride, self.head_dim = stem_stride, head_dim
        self.num_channels, self.num_classes = num_channels, num_classes
        self.choices = tuple(self._choices())
        for width in itertools.chain.from_iterable(stage.widths for stage in stages):
            if width > head_dim and width % head_dim:
                raise SpaceError(
                    f"a width of {name} is {width}; it must be a multiple of head_dim, {head_dim}, or less"
                )

    def _choices(self) -> Iterator[Choice]:
        for s, stage in enumerate(self.stages, start=1):
            yield Choice(name=f"stage{s}.width", values=stage.widths)
            yield Choice(name=f"stage{s}.depth", values=stage.depths)
            for b in range(1, max(stage.depths) + 1):
                yield Choice(name=f"stage{s}.block{b}.token_mixer", values=TOKEN_MIXERS)
                yield Choice(name=f"stage{s}.block{b}.channel_mixer", values=CHANNEL_MIXERS)

    def canonical(self, genotype: Genotype) -> Genotype:
        genotype = dict(genotype)
        for s, stage in enumerate(self.stages, start=1):
            for b in range(int(genotype[f"stage{s}.depth"]) + 1, max(stage.depths) + 1):
                genotype[f"stage{s}.block{b}.token_mixer"] = TOKEN_MIXERS[0]
                genotype[f"stage{s}.block{b}.channel_mixer"] = CHANNEL_MIXERS[0]
        return genotype

    def num_architectures(self) -> int:
        mixers = len(TOKEN_MIXERS) * len(CHANNEL_MIXERS)
        return math.prod(len(stage.widths) * sum(mixers**depth for depth in stage.depths) for stage in self.stages)

    def describe(self, genotype: Genotype) -> tuple[BlockSpec, ...]:
        widths = [int(genotype[f"stage{s}.width"]) for s in range(1, len(self.stages) + 1)]
        specs = [self._entrance(1, None, widths[0])]
        for s, width in enumerate(widths, start=1):
            if s > 1:
                specs.append(self._entrance(s, widths[s - 2], width))
            for b in range(1, int(genotype[f"stage{s}.depth"]) + 1):
                for place in (f"stage{s}.block{b}.token_mixer", f"stage{s}.block{b}.channel_mixer"):
                    specs.append(self._mixer(place, s, width, str(genotype[place])))
        return (*specs, self._head(widths[-1]))

    def block_specs(self) -> Iterator[BlockSpec]:
        before: tuple[int | None, ...] = (None,)
        for s, stage in enumerate(self.stages, start=1):
            for previous, width in itertools.product(before, stage.widths):
                yield self._entrance(s, previous, width)
            for b, width in itertools.product(range(1, max(stage.depths) + 1), stage.widths):
                for mixer in TOKEN_MIXERS:
                    yield self._mixer(f"stage{s}.block{b}.token_mixer", s, width, mixer)
                for mixer in CHANNEL_MIXERS:
                    yield self._mixer(f"stage{s}.block{b}.channel_mixer", s, width, mixer)
            before = stage.widths
        yield from (self._head(width) for width in self.stages[-1].widths)

    def _size(self, s: int) -> int:
        return -(-self.image_size // (2 * self.stem_stride * 2 ** (s - 1)))

    def _entrance(self, s: int, previous: int | None, width: int) -> BlockSpec:
        if previous is None:
            image = Port(shape=(self.num_channels, self.image_size, self.image_size))
            args = (("channels", width), ("stride", self.stem_stride))
            return BlockSpec(name="stem", kind="stem", args=args, reads=(image,))
        features = Port(shape=(previous, self._size(s - 1), self._size(s - 1)))
        return BlockSpec(name=f"stage{s}.downsample", kind="downsample", args=(("channels", width),), reads=(features,))

    def _mixer(self, place: str, s: int, width: int, mixer: str) -> BlockSpec:
        kind, args = {
            "pooling": ("pooling", ()),
            "conv3": ("conv", (("kernel", 3),)),
            "conv5": ("conv", (("kernel", 5),)),
            "conv7": ("conv", (("kernel", 7),)),
            "linear_attention": ("linear_attention", (("head_dim", self.head_dim),)),
            "attention": ("attention", (("head_dim", self.head_dim), ("reduction", self.stages[s - 1].reduction))),
            "mlp2": ("mlp", (("ratio", 2),)),
            "mlp3": ("mlp", (("ratio", 3),)),
            "mlp4": ("mlp", (("ratio", 4),)),
            "gated2": ("gated_mlp", (("ratio", 2),)),
        }[mixer]
        return BlockSpec(name=place, kind=kind, args=args, reads=(Port(shape=(width, self._size(s), self._size(s))),))

    def _head(self, width: int) -> BlockSpec:
        size = self._size(len(self.stages))
        args = (("num_classes", self.num_classes),)
        return BlockSpec(name="head", kind="head", args=args, reads=(Port(shape=(width, size, size)),))


def hybrid_tiny(*, num_channels: int = 3, num_classes: int = 10) -> HybridSpace:
    """32x32 images, about 0.5 to 7 MMACs: for small images, and for trying things on a laptop.

    Wide at low resolution: of spaces with equal MACs the one that trains fastest on a CPU and gains most from int8.
    """
    stages = (
        Stage(widths=(16, 32), depths=(1, 2)),
        Stage(widths=(32, 48, 64), depths=(1, 2, 3)),
        Stage(widths=(64, 96, 128), depths=(1, 2)),
    )
    shape = {"image_size": 32, "stem_stride": 2, "head_dim": 16}
    return HybridSpace("hybrid-tiny", stages, **shape, num_channels=num_channels, num_classes=num_classes)


def hybrid_small(*, num_channels: int = 3, num_classes: int = 10) -> HybridSpace:
    """32x32 images, about 7 to 93 MMACs: for small images where a device has a few tenths of a millisecond.

    Four times the positions and twice the width of hybrid-tiny, so that arithmetic outweighs the start of kernels.
    """
    stages = (
        Stage(widths=(32, 48), depths=(1, 2), reduction=2),
        Stage(widths=(64, 96, 128), depths=(1, 2, 3)),
        Stage(widths=(128, 192, 256), depths=(1, 2)),
    )
    shape = {"image_size": 32, "stem_stride": 1, "head_dim": 16}
    return HybridSpace("hybrid-small", stages, **shape, num_channels=num_channels, num_classes=num_classes)


def hybrid_mobile(*, num_channels: int = 3, num_classes: int = 1000) -> HybridSpace:
    """224x224 images, about 90 to 900 MMACs: for phones and small servers."""
    stages = (
        Stage(widths=(32, 48), depths=(1, 2), reduction=8),
        Stage(widths=(48, 64, 80), depths=(1, 2, 3), reduction=4),
        Stage(widths=(96, 128, 160), depths=(2, 4, 6), reduction=2),
        Stage(widths=(160, 224, 288), depths=(1, 2)),
    )
    shape = {"image_size": 224, "stem_stride": 2, "head_dim": 16}
    return HybridSpace("hybrid-mobile", stages, **shape, num_channels=num_channels, num_classes=num_classes)
