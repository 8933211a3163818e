"""What a measurement of fidelity is asked for; the fields are options of `nas fidelity`."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from cyclopts import Parameter, Token

from nas.errors import UserError

MIN_RANKED = 3
"""Fewer architectures have no ranking to speak of."""

Draws = Literal["even", "families"]


def parse_bands(text: str) -> tuple[float, ...]:
    """`1.0,2.0,4.0` as numbers; UserError when it is none."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"bands {text!r} must be numbers of MMACs with commas, such as 1.0,2.0,4.0.") from None


def _convert(_: object, tokens: Sequence[Token]) -> tuple[float, ...]:
    return parse_bands(",".join(token.value for token in tokens))


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class FidelityOptions:
    """Which architectures are trained alone, how long and how often.

    Raises:
        UserError: on construction, when a value is out of range or bands overlap.
    """

    num_architectures: int = 20
    """Architectures to rank: in bands, or without them of the whole space, its smallest and largest included."""
    epochs_alone: int = 10
    """Passes over the training images of each stand-alone training."""
    bands: Annotated[tuple[float, ...], Parameter(converter=_convert, n_tokens=1, negative="", show_default=False)] = ()
    """Centres in MMACs, with commas, around which equally many architectures are drawn. [default: the whole space]"""
    band_width_pct: float = 5.0
    """Largest distance from a band's centre, in % of it."""
    draws: Draws = "even"
    """`even`: every gene by itself, all values equally likely. `families`: they are, but genes of one kind within an
    architecture tend to one value, so that it is mostly of convolutions, of attention or of another mixer."""
    repeats: int = 3
    """Seeds with which the first architectures are trained: how well one seed ranks another bounds every ranking."""
    num_repeated: int = 6
    """Architectures that are trained with all of these seeds, others with the first alone."""
    workers: int | None = None
    """Trainings at a time, of one thread each. [default: the number of cores]"""
    alone: Path | None = None
    """Folder of another run whose stand-alone trainings are taken over: of the same space, data and recipe."""
    seed: int = 0
    """Decides which architectures are drawn, and is the first seed of the stand-alone trainings."""

    def __post_init__(self) -> None:
        lowest = {"num_architectures": MIN_RANKED, "epochs_alone": 1, "repeats": 1, "num_repeated": 0, "seed": 0}
        for name, low in lowest.items():
            if getattr(self, name) < low:
                raise UserError(f"{name} is {getattr(self, name)}; it must be {low} or more")
        if self.draws not in get_args(Draws):
            raise UserError(f"draws is {self.draws!r}; it must be {' or '.join(get_args(Draws))}")
        if self.workers is not None and self.workers < 1:
            raise UserError(f"workers is {self.workers}; it must be 1 or more, or left out")
        if not 0 < self.band_width_pct < 100:
            raise UserError(f"band_width_pct is {self.band_width_pct:g}; it must be above 0 and below 100")
        object.__setattr__(self, "bands", tuple(sorted(map(float, self.bands))))
        self._check_bands()

    def _check_bands(self) -> None:
        for centre in self.bands:
            if not (math.isfinite(centre) and centre > 0):
                raise UserError(f"bands are at {centre:g} MMACs; they must be above 0")
        width = self.band_width_pct / 100
        for low, high in pairwise(self.bands):
            if low * (1 + width) >= high * (1 - width):
                raise UserError(
                    f"bands {low:g} and {high:g} overlap at a width of {self.band_width_pct:g}%; move them apart or "
                    "lower --band-width-pct"
                )
        if len(self.bands) > self.num_architectures:
            raise UserError(
                f"num_architectures is {self.num_architectures} for {len(self.bands)} bands; give one or more a band"
            )

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"alone": None if self.alone is None else self.alone.name}
