"""Point-wise layers as convolutions beside products of matrices: what `nas.profiling.forms` rests on.

    python -m tests.benchmarks.pointwise_forms --space SPACE --output FILE.csv [--runtime onnxruntime] [--num 12]

Blocks with such layers, and whole networks (architectures of `policies`), uniformly in fp32 and static int8, in both
forms: random weights as in a profile, timed in turn. A row a model, with milliseconds and their ratio.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
from cyclopts import run as run_command
from rich.console import Console
from scipy.stats import gmean

from hardware_profiles.loading import noise
from hardware_profiles.measure import measure_interleaved
from hardware_profiles.runtimes import Runtime, get_runtime
from nas.onnx_model import chain
from nas.profiling import ProfilePlan, plan_profile
from nas.profiling.forms import PRECISIONS
from nas.profiling.plan import model_input
from nas.progress import rich_progress
from nas.provenance import module_command, provenance
from search_spaces import SearchSpace, get_space
from search_spaces.precision import uniform_policy
from tests.benchmarks.policies import architectures

SECONDS_A_PAIR = 1.0


def compare(*, space: str, output: Path, runtime: str = "onnxruntime", num: int = 12, seed: int = 0) -> None:
    """Write the table, and as JSON beside it the geometric means of convolutions' time over that of products."""
    found, target = get_space(space), get_runtime(runtime)
    options = {"signed_activations": target.signed_activations, "num_fit": 0, "num_held_out": 0, "seed": seed}
    plans = [plan_profile(found, PRECISIONS, convolutions=forms, **options) for forms in ((), PRECISIONS)]
    pairs, rows = list(pairs_of(found, plans, num, seed)), []
    with rich_progress("forms") as progress:
        for index, (row, models) in enumerate(pairs):
            products_ms, convolutions_ms = timed(target, models)
            ratio = convolutions_ms / products_ms
            rows.append(row | {"products_ms": products_ms, "convolutions_ms": convolutions_ms, "ratio": ratio})
            progress(index + 1, len(pairs), "")
    frame = pd.DataFrame(rows)
    output.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(output, index=False, float_format="%.5g")
    means = frame.groupby(["what", "precision"])["ratio"].agg(lambda ratios: float(gmean(ratios))).unstack()
    about = {"command": module_command(), "seed": seed, "convolutions_over_products": means.to_dict(orient="index")}
    about |= {"runtime": f"{target.name} {target.version}"} | provenance(("torch", "onnx", "onnxruntime"))
    output.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n")
    Console(width=160).print(means.round(3))


def pairs_of(
    space: SearchSpace, plans: list[ProfilePlan], num: int, seed: int
) -> Iterator[tuple[dict[str, str], list[onnx.ModelProto]]]:
    """What a model is, and both of its forms; blocks without point-wise layers are left out."""
    products, convolutions = ({(row.key, row.precision): row.model for row in plan.rows} for plan in plans)
    for (key, precision), model in products.items():
        other = convolutions[key, precision]
        if [node.op_type for node in model.graph.node] != [node.op_type for node in other.graph.node]:
            yield {"what": key.split()[0], "name": key, "precision": precision}, [model, other]
    for index, architecture in enumerate(architectures(space, num, seed)):
        specs = space.blocks(architecture)
        for precision in PRECISIONS:
            policy = uniform_policy(specs, precision)
            forms = [chain([m[s.cost_key, policy[s.name]] for s in specs], specs) for m in (products, convolutions)]
            yield {"what": "network", "name": str(index), "precision": precision}, forms


def timed(runtime: Runtime, models: list[onnx.ModelProto]) -> np.ndarray:
    """Latencies in milliseconds of models timed in turn."""
    samplers = []
    for model in models:
        name, shape = model_input(model)
        samplers.append(runtime.load(model.SerializeToString()).sampler({name: noise(shape)}))
    stats = measure_interleaved(samplers, budget_s=SECONDS_A_PAIR)
    return np.array([item.latency_ms for item in stats])


if __name__ == "__main__":
    run_command(compare)
