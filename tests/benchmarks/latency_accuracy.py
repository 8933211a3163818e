"""How far predicted latencies are from measured ones, on whole networks that the correction never saw.

    python -m tests.benchmarks.latency_accuracy --space hybrid-tiny --runtime onnxruntime --threads 1 --budget 90s \
        --num-held-out 100 --profile PROFILE.json --output FILE.csv

Profiles this machine, predicts the held-out networks, and measures these once more in sessions of their own:
how far two measurements of one network are apart is the noise that no prediction can be better than. `--profile` keeps
the profile; figures are recorded beside FILE.csv as FILE.json, with what made them, so the profile needs another name.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
from cyclopts import run
from rich.console import Console

from hardware_profiles.profile import HardwareProfile
from hardware_profiles.runtimes import get_runtime
from nas.config import parse_seconds
from nas.profiling import ProfilePlan, assemble_profile, measure_plan, plan_profile
from nas.profiling.forms import find_convolutions
from nas.profiling.plan import NUM_FIT
from nas.progress import rich_progress
from nas.provenance import commit, provenance
from nas.saturation import find_weight_bits
from predictors.latency import LatencyPredictor
from predictors.metrics import MIN_POINTS, prediction_metrics
from search_spaces import get_space


def measure_accuracy(
    *,
    output: Path,
    space: str = "hybrid-tiny",
    runtime: str = "onnxruntime",
    threads: int = 1,
    batch: int = 1,
    budget: str = "90s",
    num_fit: int = NUM_FIT,
    num_held_out: int = 100,
    seed: int = 0,
    name: str = "local",
    profile: Path | None = None,
) -> None:
    """Write one row a held-out network to `output`, and figures of fp32, mixed and all networks beside it."""
    about_path = output.with_suffix(".json")
    if profile is not None and profile.resolve() == about_path.resolve():
        raise SystemExit(f"--profile {profile} is where the figures go; give the profile another name than --output")
    commit()  # before the profile, which may be a tracked file, is written
    device, seconds = get_runtime(runtime, num_threads=threads), parse_seconds(budget)
    weight_bits = find_weight_bits(device)
    with rich_progress("profile") as progress:
        plan = plan_profile(
            get_space(space),
            device.precisions,
            batch_size=batch,
            weight_bits=weight_bits,
            signed_activations=device.signed_activations,
            convolutions=find_convolutions(get_space(space), device, batch_size=batch, weight_bits=weight_bits),
            num_fit=num_fit,
            num_held_out=num_held_out,
            seed=seed,
            progress=progress,
        )
        measured = assemble_profile(plan, measure_plan(plan, device, budget_s=seconds, progress=progress), name=name)
        held_out = tuple(network for network in plan.networks if network.role == "held-out")
        judges = dataclasses.replace(plan, rows=(), features_RF=plan.features_RF[:0], networks=held_out)
        again = measure_plan(judges, device, budget_s=seconds / 4, progress=progress)
    if profile is not None:
        measured.save(profile, overwrite=True)
    frame = compare(measured, judges, [None if stats is None else stats.latency_ms for stats in again.networks])
    figures = {group: group_figures(rows) for group, rows in groups(frame)}
    output.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(output, index=False)
    about = {
        "figures": figures,
        "seconds": measured.seconds,
        "rows": len(measured.rows),
        "rows_measured": sum(row.measured for row in measured.rows),
        "networks_fitted": sum(row.role == "fit" for row in measured.networks),
        "runtime": f"{measured.runtime} {measured.runtime_version}",
    } | provenance(("torch", "onnx", "onnxruntime", "scikit-learn"))
    about_path.write_text(json.dumps(about, indent=1) + "\n")
    Console(width=160).print(pd.DataFrame(figures).T.round(3).to_string())


def compare(profile: HardwareProfile, plan: ProfilePlan, again_ms: list[float | None]) -> pd.DataFrame:
    """Held-out networks: precisions, and latencies in ms as predicted, with its deviation, measured, measured again."""
    repeated = {network.blocks: ms for network, ms in zip(plan.networks, again_ms, strict=True)}
    rows = [row for row in profile.networks if row.role == "held-out"]
    predicted_ms, std_ms = LatencyPredictor.from_profile(profile).predict_with_std([row.blocks for row in rows])
    precisions = [{precision for _, precision in row.blocks} for row in rows]
    return pd.DataFrame(
        {
            "precisions": ["fp32" if found == {"fp32"} else "mixed" for found in precisions],
            "num_blocks": [len(row.blocks) for row in rows],
            "measured_ms": [row.latency_ms for row in rows],
            "measured_spread_pct": [row.spread_pct for row in rows],
            "repeated_ms": np.array([repeated[row.blocks] for row in rows], float),
            "predicted_ms": predicted_ms,
            "predicted_std_ms": std_ms,
        }
    )


def groups(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Networks in fp32, in other precisions, and all; those of fewer than three networks are left out."""
    chosen = [(name, frame[frame["precisions"] == name]) for name in ("fp32", "mixed")]
    return [(name, rows) for name, rows in [*chosen, ("all", frame)] if len(rows) >= MIN_POINTS]


def group_figures(rows: pd.DataFrame) -> dict[str, float]:
    """Errors and ranks of the predictions, and how far two measurements are apart."""
    found = prediction_metrics(rows["measured_ms"].to_numpy(), rows["predicted_ms"].to_numpy())
    error_ms = (rows["predicted_ms"] - rows["measured_ms"]).abs()
    twice = rows.dropna(subset="repeated_ms")
    repeat = (twice["repeated_ms"] - twice["measured_ms"]).abs() / twice["measured_ms"]
    repeated = prediction_metrics(twice["measured_ms"].to_numpy(), twice["repeated_ms"].to_numpy())
    return found | {
        "num_networks": len(rows),
        "beyond_10pct": int((error_ms > 0.1 * rows["measured_ms"]).sum()),
        "within_two_std": float(np.mean(error_ms <= 2 * rows["predicted_std_ms"])),
        "repeat_noise_pct": float(100 * repeat.mean()),
        "repeat_kendall": repeated["kendall"],
        "measured_twice": len(twice),
    }


if __name__ == "__main__":
    run(measure_accuracy)
