"""How far two profiles of one device are apart: median over rows of the difference in percent.

python -m tests.benchmarks.compare_profiles FIRST.json SECOND.json --output FILE.json

Whole networks that both profiles measured are the reference: `rows_without_drift` are rows of which the shift of these
networks was taken out, so that a host that is faster or slower as a whole at one of the times doesn't count.
"""

import json
from datetime import datetime
from pathlib import Path

import numpy as np
from cyclopts import run

from hardware_profiles.profile import HardwareProfile
from nas.provenance import provenance


def compare(first: Path, second: Path, *, output: Path | None = None) -> None:
    """Print, and write to `output`, how far rows and networks that were measured both times are apart."""
    before, after = HardwareProfile.load(first), HardwareProfile.load(second)
    assert before.space_fingerprint == after.space_fingerprint, "profiles of different spaces can't be compared"
    pairs = [(row, after.rows[after.row(row.key, row.precision)]) for row in before.rows]
    rows = np.array([(a.latency_ms, b.latency_ms) for a, b in pairs if a.measured and b.measured])
    again = {network.blocks: network.latency_ms for network in after.networks}
    networks = np.array([(n.latency_ms, again[n.blocks]) for n in before.networks if n.blocks in again])
    drift = float(np.median(networks[:, 1] / networks[:, 0])) if len(networks) else 1.0
    hours = (datetime.fromisoformat(after.date) - datetime.fromisoformat(before.date)).total_seconds() / 3600
    about = {
        "hours_between": round(hours, 2),
        "rows": difference(rows),
        "rows_without_drift": difference(rows / [1.0, drift]),
        "networks": difference(networks),
        "runtime": f"{after.runtime} {after.runtime_version}, threads {after.num_threads}",
        "space": after.space,
    } | provenance(("onnxruntime",))
    text = json.dumps(about, indent=1) + "\n"
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text)
    print(text, end="")


def difference(pairs_N2: np.ndarray) -> dict[str, float]:
    """Difference in percent of the mean of both: median and 90th percentile of its size, and its median with sign."""
    both_N = pairs_N2.mean(axis=1).clip(1e-9)
    percent_N = 100 * (pairs_N2[:, 1] - pairs_N2[:, 0]) / both_N
    return {
        "number": len(pairs_N2),
        "median_pct": float(np.median(np.abs(percent_N))),
        "p90_pct": float(np.percentile(np.abs(percent_N), 90)),
        "shift_pct": float(np.median(percent_N)),
    }


if __name__ == "__main__":
    run(compare)
