"""How far latencies are off by cross-validation over the networks that profiles were corrected with.

    python -m tests.benchmarks.cross_validate hardware_profiles/devices/*/*.json [--num-folds 8] [--output FILE]

A profile's networks for fitting are many more than those held out, so ranks among them say more; each is predicted by
a correction that didn't see it, which learned from fewer networks than the profile's own.
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from cyclopts import Parameter, run
from rich.console import Console
from sklearn.model_selection import KFold

from hardware_profiles.profile import HardwareProfile
from nas.provenance import provenance
from predictors.latency import LatencyPredictor
from predictors.metrics import prediction_metrics


def cross_validate(
    profiles: Annotated[tuple[Path, ...], Parameter(consume_multiple=True)],
    /,
    *,
    num_folds: int = 8,
    output: Path = Path("results/devices/cross-validated.csv"),
) -> None:
    """Write errors and ranks, a row a profile, to `output`."""
    about = provenance(("numpy", "scipy", "scikit-learn"))
    frame = pd.DataFrame([row_of(HardwareProfile.load(path), num_folds) for path in profiles])
    output.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(output, index=False)
    output.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n")
    Console(width=160).print(frame.round(3).to_string())


def row_of(profile: HardwareProfile, num_folds: int) -> dict[str, object]:
    """One profile's figures; `within_two_std` is the share within two predicted deviations."""
    rows = [row for row in profile.networks if row.role == "fit"]
    measured_ms, predicted_ms, std_ms = np.array([row.latency_ms for row in rows]), *np.empty((2, len(rows)))
    for fitted, left_out in KFold(num_folds, shuffle=True, random_state=0).split(rows):
        predictor = LatencyPredictor(profile).fit([rows[i].blocks for i in fitted], measured_ms[fitted])
        predicted_ms[left_out], std_ms[left_out] = predictor.predict_with_std([rows[i].blocks for i in left_out])
    return (
        {"device": profile.name, "space": profile.space, "networks": len(rows)}
        | prediction_metrics(measured_ms, predicted_ms)
        | {"within_two_std": float(np.mean(np.abs(predicted_ms - measured_ms) <= 2 * std_ms))}
    )


if __name__ == "__main__":
    run(cross_validate)
