"""Point-wise layers as convolutions beside products of matrices: what `nas.profiling.forms` rests on.

    python -m tests.benchmarks.pointwise_forms --space SPACE --output FILE.csv [--runtime onnxruntime] [--num 12]

Blocks with such layers, and whole networks (architectures of `policies`), uniformly in fp32 and static int8, in both
forms and in those that a profile would choose: random weights as in a profile, timed in turn. A row a model.
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
from nas.profiling.forms import PRECISIONS, find_convolutions
from nas.profiling.plan import model_input
from nas.progress import rich_progress
from nas.provenance import provenance
from search_spaces import SearchSpace, get_space
from search_spaces.precision import uniform_policy
from tests.benchmarks.policies import architectures

SECONDS_A_MODEL = 0.5


def compare(*, space: str, output: Path, runtime: str = "onnxruntime", num: int = 12, seed: int = 0) -> None:
    """Write the table, and as JSON beside it geometric means of the other forms' time over that of products."""
    found, target = get_space(space), get_runtime(runtime)
    options = {"signed_activations": target.signed_activations, "num_fit": 0, "num_held_out": 0, "seed": seed}
    every = [(spec.kind, precision) for spec in found.block_specs() for precision in PRECISIONS]
    forms = {"products": (), "convolutions": every, "chosen": find_convolutions(found, target)}
    plans = [plan_profile(found, PRECISIONS, convolutions=form, **options) for form in forms.values()]
    alike, rows = list(alike_of(found, plans, num, seed)), []
    with rich_progress("forms") as progress:
        for index, (row, models) in enumerate(alike):
            rows.append(row | dict(zip((f"{name}_ms" for name in forms), timed(target, models), strict=True)))
            progress(index + 1, len(alike), "")
    frame = pd.DataFrame(rows)
    output.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(output, index=False, float_format="%.5g")
    ratios = {name: frame[f"{name}_ms"] / frame["products_ms"] for name in ("convolutions", "chosen")}
    means = frame.assign(**ratios).groupby(["precision", "what"])[list(ratios)].agg(lambda r: float(gmean(r)))
    figures = {precision: group.droplevel(0).to_dict(orient="index") for precision, group in means.groupby("precision")}
    about = {"seed": seed, "chosen": forms["chosen"], "over_products": figures}
    about |= {"runtime": f"{target.name} {target.version}"} | provenance(("torch", "onnx", "onnxruntime"))
    output.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n")
    Console(width=160).print(means.round(3))


def alike_of(
    space: SearchSpace, plans: list[ProfilePlan], num: int, seed: int
) -> Iterator[tuple[dict[str, str], list[onnx.ModelProto]]]:
    """What a model is, and its forms, one a plan; blocks without point-wise layers are left out."""
    models = [{(row.key, row.precision): row.block for row in plan.rows} for plan in plans]
    for key, precision in models[0]:
        found = [of_plan[key, precision] for of_plan in models]
        if len({tuple(node.op_type for node in model.graph.node) for model in found}) > 1:
            yield {"what": key.split()[0], "name": key, "precision": precision}, found
    for index, architecture in enumerate(architectures(space, num, seed)):
        specs = space.blocks(architecture)
        for precision in PRECISIONS:
            policy = uniform_policy(specs, precision)
            found = [chain([m[s.cost_key, policy[s.name]] for s in specs], specs) for m in models]
            yield {"what": "network", "name": str(index), "precision": precision}, found


def timed(runtime: Runtime, models: list[onnx.ModelProto]) -> np.ndarray:
    """Latencies in milliseconds of models timed in turn."""
    samplers = []
    for model in models:
        name, shape = model_input(model)
        samplers.append(runtime.load(model.SerializeToString()).sampler({name: noise(shape)}))
    stats = measure_interleaved(samplers, budget_s=SECONDS_A_MODEL * len(models))
    return np.array([item.latency_ms for item in stats])


if __name__ == "__main__":
    run_command(compare)
