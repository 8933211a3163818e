"""Search spaces for benchmarks: --space tests.benchmarks.spaces:hybrid_128."""

from search_spaces import HybridSpace
from search_spaces.hybrid import Stage


def hybrid_128(*, num_channels: int = 3, num_classes: int = 10) -> HybridSpace:
    """128x128 images, about 10 to 60 MMACs: as near to hybrid-mobile as two cores can train within half an hour.

    With images as large as these, depthwise convolutions and the stem are much of a network's time; in a browser both
    are slower in int8, where matrix multiplications are twice as fast.
    """
    stages = (
        Stage(widths=(16, 32), depths=(1,), reduction=8),
        Stage(widths=(32, 48), depths=(1, 2), reduction=4),
        Stage(widths=(64, 96), depths=(1, 2), reduction=2),
        Stage(widths=(128, 160), depths=(1,)),
    )
    return _hybrid_128(stages, num_channels, num_classes)


def hybrid_128_wide(*, num_channels: int = 3, num_classes: int = 10) -> HybridSpace:
    """The same with wider stages, about 10 to 110 MMACs: there int8 pays in ONNX Runtime, too."""
    stages = (
        Stage(widths=(16, 32, 48), depths=(1,), reduction=8),
        Stage(widths=(32, 48, 64), depths=(1, 2), reduction=4),
        Stage(widths=(64, 96, 128), depths=(1, 2), reduction=2),
        Stage(widths=(128, 160, 224), depths=(1,)),
    )
    return _hybrid_128(stages, num_channels, num_classes)


def hybrid_128_deep(*, num_channels: int = 3, num_classes: int = 10) -> HybridSpace:
    """Those widths in stages of two blocks, about 15 to 145 MMACs: stem and down-samplers are a smaller share."""
    stages = (
        Stage(widths=(16, 32, 48), depths=(2,), reduction=8),
        Stage(widths=(32, 48, 64), depths=(2,), reduction=4),
        Stage(widths=(64, 96, 128), depths=(2,), reduction=2),
        Stage(widths=(128, 160, 224), depths=(2,)),
    )
    return _hybrid_128(stages, num_channels, num_classes)


def _hybrid_128(stages: tuple[Stage, ...], num_channels: int, num_classes: int) -> HybridSpace:
    shape = {"image_size": 128, "stem_stride": 2, "head_dim": 16}
    return HybridSpace("hybrid-128", stages, **shape, num_channels=num_channels, num_classes=num_classes)
