"""A space small enough to train within a second."""

from nas.training import TrainOptions
from search_spaces.hybrid import HybridSpace, Stage

OPTIONS = TrainOptions(num_epochs=2, batch_size=64, checkpoint_steps=3, learning_rate=3e-3)
"""On the tiny data: 7 steps an epoch, 14 in all."""


def small_space(*, widths: tuple[int, ...] = (8, 16), num_classes: int = 4) -> HybridSpace:
    stages = (Stage(widths=widths, depths=(1, 2)), Stage(widths=(16, 24), depths=(1,)))
    return HybridSpace(
        "small", stages, image_size=32, stem_stride=2, head_dim=8, num_channels=1, num_classes=num_classes
    )


class StoppedError(Exception):
    """Stands in for a kill."""


class StopAt:
    """Progress that raises once `step` steps are done."""

    def __init__(self, step: int):
        self._step = step

    def __call__(self, done: float, total: float, message: str = "") -> None:
        if done == self._step:
            raise StoppedError
