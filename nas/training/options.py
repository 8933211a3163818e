"""What a training run depends on, besides its space and data."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from nas.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """The recipe. Equal options, space and data give equal weights on one machine with one number of threads."""

    num_epochs: int = 2
    """Passes over the training images."""
    batch_size: int = 64
    """Images a step; fewer when the training split holds fewer."""
    learning_rate: float = 4e-3
    """Highest rate of the cosine schedule, which starts and ends near zero."""
    warmup_pct: float = 10.0
    """Share of all steps over which the rate rises."""
    weight_decay: float = 0.05
    """AdamW's decay of weights; norms and biases have none."""
    strategy: str = "sandwich"
    """Which sub-networks a step trains: a name, or a dotted path `my_package.strategies:MyStrategy`."""
    num_random: int = 1
    """Random sub-networks a step, beside the largest and the smallest."""
    random_share_pct: float = 50.0
    """Share of the batch that each random sub-network sees."""
    students_from_pct: float = 40.0
    """Share of all steps at the start that train the largest network alone, so that there is something to distil."""
    ema_decay: float = 0.99
    """Decay a step of the moving average of the weights, which the finished supernet holds; less in the first steps."""
    flip: bool = True
    """Mirror half of the images left to right; turn it off where that changes the class."""
    max_shift: int = 0
    """Images are moved by up to so many pixels, in both directions; it pays off in runs of many epochs."""
    checkpoint_steps: int = 150
    """Steps between two checkpoints."""
    seed: int = 0
    """Of the first weights, the order of images, augmentation and the sampled sub-networks."""

    def __post_init__(self) -> None:
        for name in ("num_epochs", "batch_size", "checkpoint_steps", "learning_rate"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name}={getattr(self, name)} is not possible; it must be above 0")
        for name in ("num_random", "max_shift", "weight_decay", "seed"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name}={getattr(self, name)} is not possible; it must be 0 or more")
        if self.batch_size < 2:
            raise UserError(f"batch_size={self.batch_size} is not possible; batch norm needs at least 2 images")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"ema_decay={self.ema_decay} is not possible; it must be at least 0 and below 1")
        if not 0 <= self.warmup_pct < 100:
            raise UserError(f"warmup_pct={self.warmup_pct} is not possible; it must be at least 0 and below 100")
        if not 0 <= self.students_from_pct <= 100:
            raise UserError(f"students_from_pct={self.students_from_pct} is not possible; it must be 0 to 100")
        if not 0 < self.random_share_pct <= 100:
            raise UserError(
                f"random_share_pct={self.random_share_pct} is not possible; it must be above 0, at most 100"
            )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "TrainOptions":
        """UserError when an option is unknown."""
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(data) - set(known)):
            raise UserError(f"'{unknown[0]}' is not an option of training; there are {', '.join(known)}")
        return cls(**data)

    def differences(self, other: "TrainOptions") -> list[str]:
        """Names of the options, other than the number of epochs and of checkpoints, whose values differ."""
        ours, theirs = self.to_json(), other.to_json()
        ignored = ("num_epochs", "checkpoint_steps")
        return [name for name in ours if name not in ignored and ours[name] != theirs[name]]
