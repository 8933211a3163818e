"""Do files compute what was simulated? Random candidates of a run's supernet, in torch and in a runtime.

    python -m tests.benchmarks.policy_agreement --run RUN --num 40 --output FILE.csv [--runtime openvino]

Architecture and policy are drawn uniformly, all precisions of the runtime among them. The run's folder is only read. A
row a candidate goes to FILE.csv, conditions and the two bars to FILE.json beside it.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from cyclopts import run as run_command
from rich.console import Console

from hardware_profiles.runtimes import Runtime, get_runtime
from nas.config import load_options, merge_options
from nas.data import Split
from nas.evaluation import predict_classes
from nas.evaluator import Evaluator
from nas.onnx_model import export_network
from nas.profiling.forms import find_convolutions
from nas.progress import rich_progress
from nas.provenance import provenance
from nas.run_inputs import load_inputs
from nas.saturation import find_weight_bits
from nas.supernet import Supernet
from nas.verify import run_file
from search_spaces.precision import Candidate, CandidateSpace

MAX_DIFFERENCE_POINTS = 0.3
MIN_AGREEMENT_PCT = 98.5


def compare(
    *,
    run: Path,
    output: Path,
    num: int = 40,
    num_images: int | None = None,
    calibration: str = "min-max",
    batch: int = 1,
    runtime: str = "onnxruntime",
    seed: int = 0,
) -> None:
    """Write the table and exit with 1 when a candidate misses a bar; `num_images` of the test split, all by default."""
    if output.exists():
        sys.exit(f"{output} exists; nothing was overwritten, give another --output")
    data, space = load_inputs(merge_options(load_options(run / "config.yaml")))
    supernet, target = Supernet.read(space, run / "supernet.safetensors"), get_runtime(runtime)
    evaluator = Evaluator(
        supernet,
        data,
        batch_size=batch,
        bits=find_weight_bits(target),
        signed=target.signed_activations,
        precisions=target.precisions,
        convolutions=find_convolutions(space, target, batch_size=batch),
        calibration=calibration,
    )
    split = data.test if num_images is None else data.test.spread(num_images)
    rows = []
    with rich_progress("agreement") as progress:
        for index, candidate in enumerate(draw(CandidateSpace(space, precisions=target.precisions), num, seed)):
            rows.append({"index": index} | row_of(evaluator, candidate, target, split))
            progress(index + 1, num, f"{rows[-1]['agreement_pct']:.2f}% equal classes")
    frame = pd.DataFrame(rows)
    output.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(output, index=False)
    figures = {
        "max_difference_points": float(frame["difference_points"].abs().max()),
        "mean_difference_points": float(frame["difference_points"].abs().mean()),
        "min_agreement_pct": float(frame["agreement_pct"].min()),
    }
    holds = (
        figures["max_difference_points"] <= MAX_DIFFERENCE_POINTS and figures["min_agreement_pct"] >= MIN_AGREEMENT_PCT
    )
    content = {
        "figures": figures,
        "bars": {"max_difference_points": MAX_DIFFERENCE_POINTS, "min_agreement_pct": MIN_AGREEMENT_PCT},
        "bars_hold": holds,
        "num_images": len(split),
        "seed": seed,
        "weight_bits": evaluator.bits,
        "signed_activations": evaluator.signed,
        "convolutions": evaluator.convolutions,
        "calibration": calibration,
        "batch_size": batch,
    } | provenance(("torch", "onnx", runtime))
    output.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
    Console(width=160).print(frame.drop(columns="candidate").round(3).to_string(index=False))
    print(json.dumps(figures))
    sys.exit(0 if holds else 1)


def draw(candidates: CandidateSpace, num: int, seed: int) -> list[Candidate]:
    """Candidates with every gene drawn uniformly."""
    rng = np.random.default_rng(seed)
    genotypes = ({c.name: c.values[rng.integers(len(c.values))] for c in candidates.choices} for _ in range(num))
    return [candidates.candidate(genotype) for genotype in genotypes]


def row_of(evaluator: Evaluator, candidate: Candidate, runtime: Runtime, split: Split) -> dict[str, Any]:
    """Test accuracies in %, file minus simulation in points, and the share of equal top-1 classes."""
    network, ranges = evaluator.deployed(candidate.architecture)
    options = {"batch_size": evaluator.batch_size, "weight_bits": evaluator.bits}
    model = export_network(network, candidate.policy, ranges, **options).SerializeToString()
    simulated = predict_classes(evaluator.network(candidate), split.images_BCHW, evaluator.data).numpy()
    found = run_file(runtime.load(model), split, evaluator.data, evaluator.batch_size).classes
    labels = split.labels_B.numpy()
    simulated_pct, file_pct = (100 * float(np.mean(classes == labels)) for classes in (simulated, found))
    used = [candidate.policy[spec.name] for spec in network.specs]
    return {
        "simulated_pct": simulated_pct,
        "file_pct": file_pct,
        "difference_points": file_pct - simulated_pct,
        "agreement_pct": 100 * float(np.mean(found == simulated)),
        "size_bytes": len(model),
        **{precision: used.count(precision) for precision in runtime.precisions},
        "candidate": json.dumps(candidate.to_json()),
    }


if __name__ == "__main__":
    run_command(compare)
