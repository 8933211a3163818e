"""What a hardware profile is made of: measured blocks and measured whole networks."""

import math
from dataclasses import dataclass
from typing import Literal

from hardware_profiles.errors import ProfileError

Blocks = tuple[tuple[str, str], ...]
"""A network as a profile sees it: (block key, precision) in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRow:
    """The measured cost of one block at one input shape and precision."""

    key: str
    """Identifies block and input shape; opaque here."""
    precision: str
    latency_ms: float
    """Latency net of an empty call of the runtime; lower is better."""
    spread_pct: float
    """How far two halves of the measurements are apart, in percent."""
    num_runs: int
    """Timed runs behind the latency."""
    size_bytes: int = 0
    """Size of the block's model file."""
    measured: bool = True
    """False where the latency was predicted from other rows."""

    def __post_init__(self) -> None:
        check_number(f"latency_ms of block {self.key!r} at {self.precision!r}", self.latency_ms)
        check_number(f"spread_pct of block {self.key!r} at {self.precision!r}", self.spread_pct)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRow:
    """The measured latency of a whole network, to correct and to judge the sum of its blocks."""

    blocks: Blocks
    """(block key, precision) of each block, in order."""
    latency_ms: float
    """Latency as measured, the runtime's call included."""
    spread_pct: float
    """How far two halves of the measurements are apart, in percent."""
    role: Literal["fit", "held-out"]
    """Whether a predictor may learn from it, or only be judged by it."""

    def __post_init__(self) -> None:
        check_number("latency_ms of a network", self.latency_ms)
        check_number("spread_pct of a network", self.spread_pct)
        if not self.blocks:
            raise ProfileError("a measured network has no blocks; it needs at least one")
        if self.role not in ("fit", "held-out"):
            raise ProfileError(f"role {self.role!r} of a network must be 'fit' or 'held-out'")


def check_number(what: str, value: float) -> None:
    """Raise a ProfileError unless `value` can be a duration or a share: finite, 0 or more."""
    if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
        raise ProfileError(f"{what} is {value!r}; it must be a finite number, 0 or more")
