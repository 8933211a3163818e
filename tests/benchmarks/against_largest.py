"""The verified front of a run against the space's largest network in full int8, all measured in turn on their files.

    python -m tests.benchmarks.against_largest --run RUN --output FILE.csv

Finetuned members are rows of their own; the largest network is not finetuned. Ratios are above 1 where the member is
faster or smaller. Validation errors say which members are no worse, test errors are reported. All files are loaded and
timed anew, twice `NUM_LOADS` times, so that a ratio's noise is seen.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from cyclopts import run as run_command
from rich.console import Console

from hardware_profiles.profile import HardwareProfile
from nas.config import load_options, merge_options
from nas.evaluation import predict_classes
from nas.evaluator import target_evaluator
from nas.export import export_model, load_model
from nas.provenance import provenance
from nas.run_inputs import load_inputs
from nas.supernet import Supernet
from nas.target import target_runtime
from nas.verify import measure_files
from search_spaces.precision import CandidateSpace
from tests.benchmarks.policies import latencies, ratio_noise_pct


def compare(*, run: Path, output: Path) -> None:
    """Write the table, fastest first, and beside it as JSON the best ratios at no lower accuracy."""
    data, space = load_inputs(merge_options(load_options(run / "config.yaml")))
    supernet, profile = Supernet.read(space, run / "supernet.safetensors"), HardwareProfile.load(run / "profile.json")
    candidates = CandidateSpace(space, precisions=profile.precisions)
    largest = candidates.uniform(space.largest(), "int8")
    reference = export_model(target_evaluator(supernet, data, profile), largest, output.with_suffix("") / "largest")
    folders = [reference, *sorted(run.glob("front/*/")), *sorted(run.glob("finetuned/*/"))]
    runtime, paths = target_runtime(profile), [folder / "model.onnx" for folder in folders]
    found = measure_files(
        paths,
        [predict_classes(load_model(folder), data.validation.images_BCHW, data).numpy() for folder in folders],
        data,
        runtime,
        batch_size=profile.batch_size,
        num_threads=2,
        step=lambda: None,
    )
    frame = pd.DataFrame(found).rename(columns=lambda name: name.removeprefix("measured_"))
    once, again = (latencies(paths, data, runtime, profile.batch_size) for _ in range(2))
    frame["latency_ms"] = np.sqrt(once * again)
    frame.insert(0, "model", ["largest int8", *(f"{folder.parent.name}/{folder.name}" for folder in folders[1:])])
    first = frame.iloc[0]
    frame["speedup"] = first["latency_ms"] / frame["latency_ms"]
    frame["times_smaller"] = first["size_bytes"] / frame["size_bytes"]
    frame["validation_points_lost"] = frame["error_pct"] - first["error_pct"]
    frame["test_points_lost"] = frame["test_error_pct"] - first["test_error_pct"]
    frame = frame.sort_values("latency_ms")
    frame.to_csv(output, index=False)
    good = frame[(frame["validation_points_lost"] <= 0) & (frame["model"] != "largest int8")]
    columns = ["model", "speedup", "times_smaller", "test_points_lost"]
    fastest = good.nlargest(1, "speedup")[columns].to_dict("records")
    smallest = good.nlargest(1, "times_smaller")[columns].to_dict("records")
    about = provenance(("torch", "onnx", "onnxruntime", "openvino"))
    about |= {"fastest_no_worse": fastest, "smallest_no_worse": smallest}
    about |= {"repeat_noise_pct": ratio_noise_pct(once, again)}
    text = json.dumps(about, indent=1) + "\n"
    output.with_suffix(".json").write_text(text)
    Console(width=160).print(frame.round(3).to_string(index=False))


if __name__ == "__main__":
    run_command(compare)
