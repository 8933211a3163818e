"""Are trained networks as fast as those of a profile, which have random weights and see noise?

    python -m tests.benchmarks.trained_latency --run RUN --output FILE.csv [--num 5] [--runtime browser]

Architectures of `policies`, uniform precisions: the file that is exported and gets an image, and the network of a
profile, timed in turn. A row a network; latencies are medians over `NUM_LOADS` loads.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from cyclopts import run as run_command
from rich.console import Console
from scipy.stats import gmean

from hardware_profiles.loading import noise
from hardware_profiles.measure import measure_interleaved
from hardware_profiles.runtimes import Runtime, get_runtime
from nas.config import load_options, merge_options
from nas.evaluation import normalize
from nas.evaluator import Evaluator
from nas.onnx_model import INPUT, chain, export_network
from nas.profiling import ProfilePlan, plan_profile
from nas.profiling.forms import find_convolutions
from nas.progress import rich_progress
from nas.provenance import provenance
from nas.run_inputs import load_inputs
from nas.saturation import find_weight_bits
from nas.supernet import Supernet
from search_spaces import Architecture
from search_spaces.precision import uniform_policy
from tests.benchmarks.policies import UNIFORM, architectures

NUM_LOADS = 3
SECONDS_A_MODEL = 2.0


def compare(*, run: Path, output: Path, num: int = 5, runtime: str = "browser", seed: int = 0) -> None:
    """Write the table, and as JSON beside it the geometric means of profiled over trained latency, a precision each."""
    data, space = load_inputs(merge_options(load_options(run / "config.yaml")))
    supernet, target = Supernet.read(space, run / "supernet.safetensors"), get_runtime(runtime)
    precisions = [precision for precision in UNIFORM if precision in target.precisions]
    evaluator = Evaluator(
        supernet,
        data,
        bits=find_weight_bits(target),
        signed=target.signed_activations,
        precisions=target.precisions,
        convolutions=find_convolutions(space, target),
    )
    plan = plan_profile(
        space,
        target.precisions,
        weight_bits=evaluator.bits,
        signed_activations=evaluator.signed,
        convolutions=evaluator.convolutions,
        seed=seed,
    )
    image = normalize(data.validation.images_BCHW[:1], data).contiguous().numpy()
    rows = []
    with rich_progress("trained or not") as progress:
        for index, architecture in enumerate(architectures(space, num, seed)):
            models = models_of(evaluator, plan, architecture, precisions)
            inputs = [image, noise(image.shape)] * len(precisions)
            latency_ms = np.array([timed(target, models, inputs) for _ in range(NUM_LOADS)])
            pairs = np.median(latency_ms, axis=0).reshape(-1, 2)
            for precision, (trained_ms, profiled_ms) in zip(precisions, pairs, strict=True):
                found = {"trained_ms": trained_ms, "profiled_ms": profiled_ms, "ratio": profiled_ms / trained_ms}
                rows.append({"architecture": index, "precision": precision} | found)
            progress(index + 1, num, "")
    frame = pd.DataFrame(rows)
    output.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(output, index=False)
    figures = {str(precision): float(gmean(group["ratio"])) for precision, group in frame.groupby("precision")}
    about = {"seed": seed, "profiled_over_trained": figures}
    about |= {"runtime": f"{target.name} {target.version}"} | provenance(("torch", "onnx", "onnxruntime"))
    output.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n")
    Console(width=160).print(frame.round(3).to_string(index=False))
    print(json.dumps(figures))


def models_of(
    evaluator: Evaluator, plan: ProfilePlan, architecture: Architecture, precisions: list[str]
) -> list[bytes]:
    """The exported and the profiled model of each precision, in turn."""
    specs, models = evaluator.supernet.space.blocks(architecture), {(r.key, r.precision): r.model for r in plan.rows}
    network, ranges = evaluator.deployed(architecture)
    found = []
    for precision in precisions:
        policy = uniform_policy(specs, precision)
        exported = export_network(network, policy, ranges, weight_bits=evaluator.bits)
        profiled = chain([models[spec.cost_key, policy[spec.name]] for spec in specs], specs)
        found += [exported.SerializeToString(), profiled.SerializeToString()]
    return found


def timed(runtime: Runtime, models: list[bytes], inputs: list[np.ndarray]) -> list[float]:
    """Latencies in milliseconds of models timed in turn, after loading each once."""
    samplers = [runtime.load(model).sampler({INPUT: x}) for model, x in zip(models, inputs, strict=True)]
    stats = measure_interleaved(samplers, budget_s=SECONDS_A_MODEL * len(models))
    return [item.latency_ms for item in stats]


if __name__ == "__main__":
    run_command(compare)
