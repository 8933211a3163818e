"""A space of 1,152 architectures that profile and train in seconds; on the command line `tests.tiny_space:tiny`."""

from search_spaces.hybrid import HybridSpace, Stage


def tiny(*, num_channels: int = 1, num_classes: int = 4) -> HybridSpace:
    """32x32 images, two stages."""
    return HybridSpace(
        "tiny",
        (Stage(widths=(16,), depths=(1,)), Stage(widths=(16, 32), depths=(1,))),
        image_size=32,
        stem_stride=4,
        head_dim=16,
        num_channels=num_channels,
        num_classes=num_classes,
    )
