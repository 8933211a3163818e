"""Do runtimes give the same classes for the same file? The exported front of a run, in torch and in each runtime.

    python -m tests.benchmarks.runtimes_agree --run RUN --runtimes onnxruntime openvino --output FILE.csv

The run's folder is only read. A row a file and runtime goes to FILE.csv, conditions and the bar to FILE.json beside it.
A runtime adds up int8 products exactly for weights of so many bits as `nas.saturation` finds; a file with more bits
than that may differ on this device, and its rows say so.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from cyclopts import Parameter
from cyclopts import run as run_command
from rich.console import Console

from hardware_profiles.runtimes import Runtime, get_runtime
from nas.config import load_options, merge_options
from nas.data import ImageData, Split
from nas.errors import UserError
from nas.evaluation import predict_classes
from nas.export import load_model
from nas.progress import rich_progress
from nas.provenance import provenance
from nas.run_inputs import load_inputs
from nas.saturation import find_weight_bits
from nas.verify import run_file

MAX_DIFFERENCE_POINTS = 0.3


def compare(
    *,
    run: Path,
    output: Path,
    runtimes: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = ("onnxruntime", "openvino"),
    num_images: int | None = None,
    threads: int = 1,
) -> None:
    """Write the table and exit with 1 when a difference that saturation doesn't explain misses the bar.

    Args:
        num_images: of the test split, all by default.
    """
    if output.exists():
        sys.exit(f"{output} exists; nothing was overwritten, give another --output")
    folders = sorted(path.parent for path in run.glob("front/*/model.onnx"))
    if not folders:
        sys.exit(f"{run} has no exported models; give the folder of a verified run")
    data, _ = load_inputs(merge_options(load_options(run / "config.yaml")))
    split = data.test if num_images is None else data.test.spread(num_images)
    chosen = [get_runtime(name, num_threads=threads) for name in runtimes]
    bits = {runtime.name: exact_bits(runtime) for runtime in chosen}
    rows = []
    with rich_progress("runtimes") as progress:
        for place, folder in enumerate(folders):
            rows += rows_of(folder, chosen, bits, split, data)
            progress(place + 1, len(folders), f"model {folder.name}")
    frame = pd.DataFrame(rows)
    explained = frame["weight_bits"] > frame["exact_bits"]
    holds = bool((frame["difference_points"].abs() <= MAX_DIFFERENCE_POINTS)[~explained].all())
    output.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(output, index=False)
    content = {
        "figures": {runtime.name: figures(frame[frame["runtime"] == runtime.name]) for runtime in chosen},
        "exact_weight_bits": bits,
        "bar": {"max_difference_points": MAX_DIFFERENCE_POINTS, "holds": holds, "explained_rows": int(explained.sum())},
        "num_images": len(split),
        "num_threads": threads,
        "runtimes": {runtime.name: runtime.version for runtime in chosen},
    } | provenance(("torch", "onnx"))
    output.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
    Console(width=160).print(frame.round(3).to_string(index=False))
    print(json.dumps(content["figures"]))
    sys.exit(0 if holds else 1)


def exact_bits(runtime: Runtime) -> int:
    """Bits of int8 weights that the runtime computes exactly here; 0 when none."""
    try:
        return find_weight_bits(runtime)
    except UserError:
        return 0


def rows_of(
    folder: Path, runtimes: list[Runtime], bits: Mapping[str, int], split: Split, data: ImageData
) -> list[dict[str, Any]]:
    """For each runtime test accuracy in %, points above torch's, and equal top-1 classes with torch and the first."""
    description = json.loads((folder / "architecture.json").read_text(encoding="utf-8"))
    used = {block["precision"] for block in description["blocks"]}
    labels = split.labels_B.numpy()
    simulated = predict_classes(load_model(folder), split.images_BCHW, data).numpy()
    found = [
        run_file(runtime.load(folder / "model.onnx"), split, data, description["batch_size"]).classes
        for runtime in runtimes
    ]
    return [
        {
            "model": int(folder.name),
            "runtime": runtime.name,
            "device": runtime.device,
            "torch_pct": accuracy_pct(simulated, labels),
            "file_pct": accuracy_pct(classes, labels),
            "difference_points": accuracy_pct(classes, labels) - accuracy_pct(simulated, labels),
            "agreement_pct": accuracy_pct(classes, simulated),
            f"agreement_with_{runtimes[0].name}_pct": accuracy_pct(classes, found[0]),
            "weight_bits": description["weight_bits"] if used & {"int8", "int8-dynamic"} else 0,
            "exact_bits": bits[runtime.name],
            "precisions": " ".join(sorted(used)),
        }
        for runtime, classes in zip(runtimes, found, strict=True)
    ]


def figures(frame: pd.DataFrame) -> dict[str, float]:
    """Of one runtime's rows."""
    return {
        "max_difference_points": float(frame["difference_points"].abs().max()),
        "mean_difference_points": float(frame["difference_points"].abs().mean()),
        "min_agreement_pct": float(frame["agreement_pct"].min()),
    }


def accuracy_pct(classes: np.ndarray, labels: np.ndarray) -> float:
    """Share of equal classes in percent."""
    return 100 * float(np.mean(classes == labels))


if __name__ == "__main__":
    run_command(compare)
