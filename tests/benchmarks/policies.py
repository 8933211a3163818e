"""Uniform, allocated and searched precisions of the same architectures, measured on exported files.

    python -m tests.benchmarks.policies --run RUN --output FOLDER [--num 12]

The smallest, middle and largest network of a run's supernet and random ones; the run needs a profile of this machine.
The allocated policy is the fastest by prediction whose error, simulated and estimated from misses and cross-entropy of
validation images as a search does it, is at most `TOLERANCE` points above that of fp32: misses alone differ by more
than that between policies that are as good. The searched one is found as `nas search` does it under the same limit: of
the uniform policies here and those that are the fastest by prediction, `NUM_VERIFIED` in all, that whose file was
measured to be the fastest. Beside them is the fp32 file in int8 by the runtime's usual tool (`peer_quantizers`). Then
all are loaded and timed again, in turn, twice `NUM_LOADS` times: what chose a file isn't what is said about it, where a
runtime puts a network in memory differs from load to load, and a ratio's noise is seen.
Rows are kept as they come; a run that was interrupted goes on.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from cyclopts import run as run_command
from rich.console import Console
from scipy.stats import gmean

from hardware_profiles.profile import HardwareProfile
from hardware_profiles.runtimes import Runtime
from nas.candidates import CheapObjectives, profile_blocks, run_search
from nas.config import load_options, merge_options
from nas.data import ImageData
from nas.evaluation import predict_classes
from nas.evaluator import Evaluator, ScoresOf, target_evaluator
from nas.export import export_model
from nas.progress import rich_progress
from nas.provenance import provenance
from nas.run_inputs import load_inputs
from nas.sensitivity import allocate_policy, measure_sensitivity, policy_budgets
from nas.supernet import Supernet
from nas.target import target_runtime
from nas.verify import measure_files, time_sessions
from predictors.latency import LatencyPredictor
from search_spaces import Architecture, SearchSpace
from search_spaces.precision import Candidate
from tests.benchmarks.peer_quantizers import PEERS

TOLERANCE = 0.1
"""Points of estimated validation error by which a policy may be above fp32."""
FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75)
"""Budgets tried by the allocator, from the least possible latency to that of fp32."""
NUM_VERIFIED = 10
"""Searched policies whose files are measured, as many as a search exports."""
NUM_LOADS = 3
"""Times that files are loaded and timed; their latency is the median."""
TIMING_S = 1.5
"""Of a file and load: where neighbours leave a machine alone for a twentieth of the time, less misses those moments."""
UNIFORM = ("fp32", "int8", "int8-dynamic", "bf16")
"""As far as the target has them."""


def compare(
    *,
    run: Path,
    output: Path,
    num: int = 12,
    num_evaluations: int = 40,
    num_images: int = 5000,
    num_test: int = 10_000,
    seed: int = 0,
) -> None:
    """Measure policies of each architecture; writes `policies.csv` and `policies.json` to `output`.

    At most `num_images` evenly spaced validation images decide, and `num_test` of test say what was given up.
    """
    data, space = load_inputs(merge_options(load_options(run / "config.yaml")))
    data = replace(data, validation=data.validation.spread(num_images), test=data.test.spread(num_test))
    supernet, profile = Supernet.read(space, run / "supernet.safetensors"), HardwareProfile.load(run / "profile.json")
    evaluator = target_evaluator(supernet, data, profile)
    path = output / "policies.csv"
    frame = pd.read_csv(path) if path.exists() else pd.DataFrame({"architecture": []})
    with rich_progress("policies") as progress:
        for index, architecture in enumerate(architectures(space, num, seed)):
            if index not in set(frame["architecture"]):
                chosen = policies_of(evaluator, profile, architecture, num_evaluations=num_evaluations, seed=seed)
                rows = measured(evaluator, profile, chosen, output / "models" / str(index))
                frame = pd.concat([frame, pd.DataFrame([{"architecture": index, **row} for row in rows])])
                output.mkdir(parents=True, exist_ok=True)
                frame.to_csv(path, index=False)
            progress(index + 1, num, "")
    about = {"seed": seed, "tolerance_points": TOLERANCE, "figures": figures(frame)}
    about |= provenance(("torch", "onnx", "onnxruntime", "openvino", "nncf"))
    (output / "policies.json").write_text(json.dumps(about, indent=1) + "\n")
    console = Console(width=160)
    console.print(frame.drop(columns="candidate").round(3).to_string(index=False))
    console.print_json(json.dumps(about["figures"]))


def architectures(space: SearchSpace, num: int, seed: int) -> list[Architecture]:
    """Three named ones, then random ones."""
    rng = np.random.default_rng(seed)
    return [space.smallest(), space.middle(), space.largest(), *(space.sample(rng) for _ in range(num - 3))]


def policies_of(
    evaluator: Evaluator, profile: HardwareProfile, architecture: Architecture, *, num_evaluations: int, seed: int
) -> dict[str, Candidate]:
    """Candidates of one architecture by what chose their policy; the searched ones are still to be verified."""
    space = evaluator.supernet.space
    scores_of = ScoresOf(evaluator.supernet, evaluator.data, profile, architecture=architecture)
    scores_of.fit_estimate()
    candidates = scores_of.candidates
    cheap, specs = CheapObjectives(candidates, profile), space.blocks(architecture)

    def error_pct(candidate: Candidate) -> float:
        return scores_of(candidates.genotype(candidate))["estimated_error_pct"]

    uniform = [precision for precision in UNIFORM if precision in profile.precisions]
    chosen = {precision: candidates.uniform(architecture, precision) for precision in uniform}
    limit_pct = error_pct(chosen["fp32"]) + TOLERANCE
    table = measure_sensitivity(evaluator.network, architecture, space=space, profile=profile, data=evaluator.data)
    budgets = policy_budgets(table, fractions=FRACTIONS)
    policies = dict.fromkeys(allocate_policy(specs, table, budget=budget) for budget in budgets)
    allocated = sorted(
        (Candidate(architecture=architecture, policy=policy) for policy in policies),
        key=lambda candidate: cheap([candidates.genotype(candidate)])["latency_ms"][0],
    )
    good = (candidate for candidate in allocated if error_pct(candidate) <= limit_pct)
    chosen["allocated"] = next(good, chosen["fp32"])
    study = run_search(
        evaluator.supernet,
        evaluator.data,
        profile,
        objectives=("estimated_error_pct", "latency_ms"),
        constraints=(f"estimated_error_pct<={limit_pct}",),
        num_evaluations=num_evaluations,
        architecture=architecture,
        estimate=scores_of.estimate,
        seed=seed,
    )
    allowed = study[(study["state"] == "complete") & (study["estimated_error_pct"] <= limit_pct)]
    rows = allowed.sort_values("latency_ms")[[choice.name for choice in candidates.choices]]
    fastest = [candidates.candidate(genotype) for genotype in rows.to_dict("records")]
    of_one = [chosen[precision] for precision in uniform if chosen[precision] in fastest]
    for place, candidate in enumerate(list(dict.fromkeys([*of_one, *fastest]))[:NUM_VERIFIED]):
        chosen[f"searched{place}"] = candidate
    return chosen


def measured(
    evaluator: Evaluator, profile: HardwareProfile, chosen: dict[str, Candidate], folder: Path
) -> list[dict[str, Any]]:
    """A row a policy: latencies of two measurements, validation and test error, size, agreement with the simulation."""
    data, runtime, batch_size = evaluator.data, target_runtime(profile), profile.batch_size
    paths = {name: export_model(evaluator, found, folder / name) / "model.onnx" for name, found in chosen.items()}
    searched = [name for name in chosen if name.startswith("searched")]
    latency_ms = latencies([paths[name] for name in searched], data, runtime, batch_size)
    best = searched[int(np.argmin(latency_ms))]
    chosen = {name: found for name, found in chosen.items() if name not in searched} | {"searched": chosen[best]}
    paths["searched"] = paths[best]
    blocks = [profile_blocks(evaluator.supernet.space, found) for found in chosen.values()]
    predicted_ms = dict(zip(chosen, LatencyPredictor.from_profile(profile).predict(blocks), strict=True))
    peer, quantize = PEERS[profile.runtime]
    paths[peer], chosen[peer] = quantize(paths["fp32"], folder, data, batch_size), chosen["fp32"]
    files = [paths[name] for name in chosen]
    classes = [
        predict_classes(evaluator.network(candidate), data.validation.images_BCHW, data).numpy()
        for candidate in chosen.values()
    ]
    found = side_by_side(files, classes, data, profile)
    first, second = (latencies(files, data, runtime, batch_size) for _ in range(2))
    return [
        {"policy": name}
        | {key.removeprefix("measured_"): value for key, value in row.items()}
        | {"latency_ms": first[place], "repeated_latency_ms": second[place], "predicted_ms": predicted_ms.get(name)}
        | {"candidate": json.dumps(chosen[name].to_json())}
        for place, (name, row) in enumerate(zip(chosen, found, strict=True))
    ]


def side_by_side(
    paths: list[Path], classes: list[np.ndarray], data: ImageData, profile: HardwareProfile
) -> list[dict[str, float]]:
    """`measure_files` in two runtimes, as a browser's page runs one file at a time; latencies are disturbed."""

    def measure(half: slice) -> list[dict[str, float]]:
        return measure_files(
            paths[half],
            classes[half],
            data,
            target_runtime(profile),
            batch_size=profile.batch_size,
            num_threads=1,
            step=lambda: None,
        )

    halves = (slice(0, None, 2), slice(1, None, 2))
    found: list[dict[str, float]] = [{} for _ in paths]
    with ThreadPoolExecutor(len(halves)) as pool:
        for half, rows in zip(halves, pool.map(measure, halves), strict=True):
            found[half] = rows
    return found


def latencies(paths: list[Path], data: ImageData, runtime: Runtime, batch_size: int) -> np.ndarray:
    """Of files timed in turn: medians over `NUM_LOADS` loads."""
    loads = [
        time_sessions([runtime.load(path) for path in paths], data, batch_size, model_s=TIMING_S)
        for _ in range(NUM_LOADS)
    ]
    return np.median([[stats.latency_ms for stats in load] for load in loads], axis=0)


def figures(frame: pd.DataFrame) -> dict[str, float]:
    """Speed-ups, latencies over predicted ones, geometric means over architectures; accuracy given up; noise."""
    once = frame.pivot(index="architecture", columns="policy", values="latency_ms")
    again = frame.pivot(index="architecture", columns="policy", values="repeated_latency_ms")
    latency = np.sqrt(once * again)
    predicted = frame.pivot(index="architecture", columns="policy", values="predicted_ms")
    error = frame.pivot(index="architecture", columns="policy", values="test_error_pct")
    uniform = [precision for precision in UNIFORM if precision in latency]
    peers = [peer for peer, _ in PEERS.values() if peer in latency]
    best = latency[uniform].min(axis=1)
    found: dict[str, float] = {}
    for name in ("searched", "allocated"):
        for other in (*uniform, *peers):
            found[f"{name}_speedup_over_{other}"] = float(gmean(latency[other] / latency[name]))
        found[f"{name}_speedup_over_best_uniform"] = float(gmean(best / latency[name]))
        found[f"{name}_least_speedup_over_best_uniform"] = float((best / latency[name]).min())
        found[f"{name}_mean_points_below_fp32"] = float((error[name] - error["fp32"]).mean())
        found[f"{name}_most_points_below_fp32"] = float((error[name] - error["fp32"]).max())
    for peer in peers:
        found[f"{peer}_mean_points_below_fp32"] = float((error[peer] - error["fp32"]).mean())
    for name in (*uniform, "allocated", "searched"):
        found[f"{name}_measured_over_predicted"] = float(gmean(latency[name] / predicted[name]))
    found["repeat_noise_pct"] = max(map(ratio_noise_pct, once.to_numpy(), again.to_numpy()))
    return found


def ratio_noise_pct(once: np.ndarray, again: np.ndarray) -> float:
    """How far two measurements of files are apart at most, but for the drift that all of them share."""
    ratio = again / once
    return 100 * float(np.abs(ratio / np.median(ratio) - 1).max())


if __name__ == "__main__":
    run_command(compare)
