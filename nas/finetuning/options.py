"""What finetuning is asked for; the fields are options of `nas finetune`."""

import math
from dataclasses import dataclass

from cyclopts import Parameter

from nas.errors import UserError


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class FinetuneOptions:
    """How long and how fast.

    Raises:
        UserError: on construction, when a value is out of range.
    """

    epochs: int = 2
    """Passes over the training images for each model."""
    learning_rate: float = 2e-3
    """Highest rate of the cosine schedule."""

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise UserError(f"epochs is {self.epochs}; it must be 1 or more")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise UserError(f"learning_rate is {self.learning_rate:g}; it must be above 0, such as 2e-3")
