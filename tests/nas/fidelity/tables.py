"""Made-up rows of `fidelity.csv`."""

from collections.abc import Sequence

import numpy as np
import pandas as pd


def make_rows(
    standalone: Sequence[float],
    inherited: Sequence[float],
    *,
    macs: Sequence[int] | None = None,
    bands: Sequence[float] | None = None,
) -> pd.DataFrame:
    """One row an architecture, seed 0, all sampled."""
    count = len(standalone)
    return pd.DataFrame(
        {
            "index": range(count),
            "role": "sampled",
            "band_mmacs": np.full(count, np.nan) if bands is None else bands,
            "stage1.width": 16,
            "macs": range(1_000_000, 1_000_000 + count) if macs is None else macs,
            "params": 1000,
            "seed": 0,
            "epochs": 1,
            "standalone_validation_pct": standalone,
            "standalone_test_pct": standalone,
            "seconds": 1.0,
            "inherited_validation_pct": inherited,
            "inherited_test_pct": inherited,
            "inherited_test_cross_entropy": np.nan,
            "inherited_test_true_class_pct": np.nan,
            "inherited_test_estimated_error_pct": np.nan,
        }
    )


def repeat(rows: pd.DataFrame, *, seed: int, standalone: Sequence[float]) -> pd.DataFrame:
    """The rows, and the first of them trained with another seed."""
    again = rows.iloc[: len(standalone)].assign(seed=seed, standalone_test_pct=standalone)
    return pd.concat([rows, again], ignore_index=True)
