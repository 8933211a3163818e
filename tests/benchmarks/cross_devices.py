"""Is a front better on the device it was searched for? Fronts of one supernet for several devices, measured on each.

    python -m tests.benchmarks.cross_devices --runs RUN_A RUN_B --output FILE.csv

The runs' folders are only read; all their devices must be runtimes of this machine. A row a device and model goes to
FILE.csv; the hypervolume of each front on each device, and what each front has that another dominates, to FILE.json.
"""

import itertools
import json
from pathlib import Path
from typing import Annotated, Any

import moocore
import numpy as np
import pandas as pd
from cyclopts import Parameter
from cyclopts import run as run_command
from rich.console import Console

from hardware_profiles.profile import HardwareProfile
from hardware_profiles.runtimes import get_runtime
from nas.config import load_options, merge_options
from nas.data import ImageData
from nas.progress import rich_progress
from nas.provenance import provenance
from nas.run_inputs import load_inputs
from nas.verify import run_file, time_sessions

NUM_TIMINGS = 3


def compare(*, runs: Annotated[tuple[Path, ...], Parameter(consume_multiple=True)], output: Path) -> None:
    """Measure every front on every device and write the tables."""
    data, _ = load_inputs(merge_options(load_options(runs[0] / "config.yaml")))
    models = [(run.name, path) for run in runs for path in front_files(run)]
    rows: list[dict[str, Any]] = []
    with rich_progress("devices") as progress:
        for place, run in enumerate(runs):
            rows += measure_on(HardwareProfile.load(run / "profile.json"), run.name, models, data)
            progress(place + 1, len(runs), f"device of {run.name}")
    frame = pd.DataFrame(rows)
    output.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(output, index=False)
    names = [run.name for run in runs]
    policies = {run.name: {description(path) for path in front_files(run)} for run in runs}
    content = {
        "hypervolume": {device: hypervolumes(frame[frame["device"] == device]) for device in names},
        "dominated_pct": {device: dominated(frame[frame["device"] == device]) for device in names},
        "models": {name: len(found) for name, found in policies.items()},
        "equal_models": {f"{a}, {b}": len(policies[a] & policies[b]) for a, b in itertools.combinations(names, 2)},
    } | provenance(("torch", "onnx", "onnxruntime"))
    output.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
    console = Console(width=160)
    for table in ("hypervolume", "dominated_pct"):
        console.print(table, pd.DataFrame(content[table]).T.round(4).to_string(), sep="\n")


def front_files(run: Path) -> list[Path]:
    """Model files that a run's verification left on its front."""
    verified = json.loads((run / "verified.json").read_text(encoding="utf-8"))
    return [run / "front" / str(row["index"]) / "model.onnx" for row in verified["rows"] if row["on_front"]]


def description(path: Path) -> str:
    """Architecture and policy of a model file."""
    blocks = json.loads((path.parent / "architecture.json").read_text(encoding="utf-8"))["blocks"]
    return json.dumps(blocks, sort_keys=True)


def measure_on(
    profile: HardwareProfile, device: str, models: list[tuple[str, Path]], data: ImageData
) -> list[dict[str, Any]]:
    """Validation error in % and latency in ms, the median of `NUM_TIMINGS` loads, of all models on one device."""
    runtime = get_runtime(profile.runtime, num_threads=profile.num_threads, device=profile.runtime_device)
    labels = data.validation.labels_B.numpy()
    timings = []
    for _ in range(NUM_TIMINGS):
        sessions = [runtime.load(path) for _, path in models]
        timings.append([stats.latency_ms for stats in time_sessions(sessions, data, profile.batch_size)])
    found = [run_file(session, data.validation, data, profile.batch_size).classes for session in sessions]
    return [
        {
            "device": device,
            "runtime": f"{runtime.name} {runtime.version}",
            "num_threads": runtime.num_threads,
            "front": front,
            "model": int(path.parent.name),
            "error_pct": 100 - 100 * float(np.mean(classes == labels)),
            "latency_ms": float(latency_ms),
            "size_bytes": path.stat().st_size,
        }
        for (front, path), classes, latency_ms in zip(models, found, np.median(timings, axis=0), strict=True)
    ]


def hypervolumes(rows: pd.DataFrame) -> dict[str, float]:
    """Of each front on one device, in error and log-latency, scaled so that all models span the unit square."""
    values = np.column_stack([rows["error_pct"], np.log(rows["latency_ms"])])
    scaled = (values - values.min(axis=0)) / np.ptp(values, axis=0)
    return {
        front: float(moocore.hypervolume(scaled[(rows["front"] == front).to_numpy()], ref=[1.1, 1.1]))
        for front in rows["front"].unique()
    }


def dominated(rows: pd.DataFrame) -> dict[str, float]:
    """Share of each front's models, in %, that a model of another front beats in error and latency on this device."""
    values = rows[["error_pct", "latency_ms"]].to_numpy()
    fronts = rows["front"].to_numpy()
    beaten = [
        bool(((values[fronts != front] <= value).all(axis=1) & (values[fronts != front] < value).any(axis=1)).any())
        for front, value in zip(fronts, values, strict=True)
    ]
    return {front: 100 * float(np.mean(np.array(beaten)[fronts == front])) for front in rows["front"].unique()}


if __name__ == "__main__":
    run_command(compare)
