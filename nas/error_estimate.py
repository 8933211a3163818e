"""An error estimated from the images at hand: what cross-entropy lets expect, moved towards the misses counted.

A count of misses depends on which images happen to be counted. Cross-entropy uses more of what each image says and so
depends on them less, but networks that are sure of their mistakes have more of it than their error explains. The
estimate expects the error that networks of equal cross-entropy have, and corrects it by the share of the remaining
difference that isn't chance (Fay and Herriot 1979).
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd

Values = TypeVar("Values", float, pd.Series)

NUM_NETWORKS = 16
"""What an estimate is fitted to: each is evaluated once."""
NUM_IMAGES = 2000
"""Images that an estimate is fitted to at least, where there are as many: with few, chance alone may look real."""
MIN_NETWORKS = 8
"""With fewer the misses are taken as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorEstimate:
    """An error in % that is linear in the error counted (%) and in cross-entropy (nats)."""

    constant: float = 0.0
    per_error: float = 1.0
    """Share of the difference between counted and expected error that is believed."""
    per_nat: float = 0.0

    def __call__(self, error_pct: Values, cross_entropy: Values) -> Values:
        """The estimate of one network or of several, in %."""
        return self.constant + self.per_error * error_pct + self.per_nat * cross_entropy

    @classmethod
    def fit(
        cls, misses_NI: np.ndarray, cross_entropy_N: np.ndarray, *, num_images: int | None = None
    ) -> "ErrorEstimate":
        """From N networks and the same I images: which of them each network misses, and its mean cross-entropy in nats.

        Chance is what the part of single images that cross-entropy doesn't explain amounts to in their mean; what all
        networks miss alike drops out. Networks without finite cross-entropy are left out.

        Args:
            num_images: of errors and cross-entropies that will be estimated from, if others than these I.
        """
        usable_N = np.isfinite(cross_entropy_N)
        if usable_N.sum() < MIN_NETWORKS or np.ptp(cross_entropy_N[usable_N]) == 0:
            return cls()
        misses_NI, cross_entropy_N = 100.0 * misses_NI[usable_N], cross_entropy_N[usable_N]
        num_networks, num_fitted = misses_NI.shape
        known_N2 = np.column_stack([np.ones(num_networks), cross_entropy_N])
        slopes_2I = np.linalg.lstsq(known_N2, misses_NI, rcond=None)[0]
        rest_NI = misses_NI - known_N2 @ slopes_2I
        of_one = float(rest_NI.var(axis=1, ddof=1).sum())
        real = max(0.0, float(np.square(rest_NI.mean(axis=1)).sum()) - of_one / num_fitted)
        believed = real / (real + of_one / (num_images or num_fitted)) if real > 0 else 0.0
        constant, per_nat = (1 - believed) * slopes_2I.mean(axis=1)
        return cls(constant=float(constant), per_error=believed, per_nat=float(per_nat))

    @classmethod
    def of_rows(cls, frame: pd.DataFrame) -> "ErrorEstimate":
        """The one that gave the rows' `estimated_error_pct` from `error_pct` and `cross_entropy`."""
        columns = ["error_pct", "cross_entropy", "estimated_error_pct"]
        rows = frame.reindex(columns=columns).dropna().to_numpy(float)
        known = np.column_stack([np.ones(len(rows)), rows[:, :2]])
        constant, per_error, per_nat = np.linalg.lstsq(known, rows[:, 2], rcond=None)[0]
        return cls(constant=float(constant), per_error=float(per_error), per_nat=float(per_nat))
