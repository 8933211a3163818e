"""What is seen of a supernet while it trains: accuracy of a few networks, and trackers that record it."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nas.data import ImageData, Split
from nas.errors import UserError
from nas.evaluation import accuracy_pct, recalibrate
from nas.processes import is_main
from nas.supernet import Supernet
from nas.training.options import TrainOptions
from search_spaces import Architecture, SearchSpace

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

NUM_CALIBRATION_IMAGES = 512
"""Training images for the norm statistics of a watched network; half of what a judged one gets."""


def watched(space: SearchSpace) -> dict[str, Architecture]:
    """Smallest, middle and largest network."""
    return {"smallest": space.smallest(), "middle": space.middle(), "largest": space.largest()}


def accuracies(supernet: Supernet, data: ImageData) -> dict[str, dict[str, float]]:
    """Validation and test accuracy in % of the watched networks, each with norm statistics of its own."""
    found = {}
    for name, architecture in watched(supernet.space).items():
        network = recalibrate(supernet.extract(architecture), data)
        found[name] = {
            f"{split}_pct": accuracy_pct(network, data.splits[split], data) for split in ("validation", "test")
        }
    return found


def glance(supernet: Supernet, weights: torch.Tensor, data: ImageData, *, num_images: int) -> dict[str, float]:
    """Validation accuracy in % on `num_images` evenly spaced images, with `weights` in place of the supernet's own."""
    indices_B = torch.linspace(0, len(data.validation) - 1, min(num_images, len(data.validation))).long()
    split = Split(images_BCHW=data.validation.images_BCHW[indices_B], labels_B=data.validation.labels_B[indices_B])
    own = supernet.flat.clone()
    supernet.flat.copy_(weights)
    try:
        return {
            f"{name}_pct": accuracy_pct(
                recalibrate(supernet.extract(architecture), data, num_images=NUM_CALIBRATION_IMAGES), split, data
            )
            for name, architecture in watched(supernet.space).items()
        }
    finally:
        supernet.flat.copy_(own)


class Tracker:
    """Sends figures to the tracker that the options name, through accelerate; without one it does nothing."""

    def __init__(self, options: TrainOptions, folder: Path):
        self._tracker: GeneralTracker | None = None
        if options.tracker and is_main():
            self._tracker = _open_tracker(options.tracker, folder)
            self._tracker.start()
            self._tracker.store_init_configuration(options.to_json())

    def log(self, values: dict[str, float], *, step: int) -> None:
        if self._tracker is not None:
            self._tracker.log(values, step=step)

    def finish(self) -> None:
        if self._tracker is not None:
            self._tracker.finish()


def _open_tracker(name: str, folder: Path) -> "GeneralTracker":
    from accelerate.tracking import MLflowTracker, TensorBoardTracker

    try:
        if name == "tensorboard":
            return TensorBoardTracker("training", logging_dir=str(folder))
        return MLflowTracker("hybridnas", logging_dir=str(folder))
    except ImportError as error:
        raise UserError(
            f"tracker '{name}' can't be used ({error}); pip install {name}, or leave tracker empty"
        ) from None
