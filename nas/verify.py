"""Measure what was promised: each member of the front is exported, run and timed, and judged by its own file.

Membership and constraints go by measured latency and the file's validation accuracy. A member that falls out is
replaced by the next candidates until the front holds. Test accuracy is reported last and chooses nothing.
"""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from hardware_profiles.measure import LatencyStats, measure_interleaved
from hardware_profiles.profile import HardwareProfile
from hardware_profiles.runtimes import Runtime, Session
from nas.candidates import OBJECTIVES, Evaluator, target_evaluator, torch_threads
from nas.data import ImageData, Split
from nas.errors import UserError
from nas.evaluation import normalize, predict_classes
from nas.export import export_model
from nas.onnx_model import INPUT
from nas.progress import Progress
from nas.search import Constraint, Objective, parse_constraint
from nas.search.pareto import on_front
from nas.supernet import Supernet
from search_spaces import Architecture
from search_spaces.precision import CandidateSpace

TIMING_S_PER_MODEL = 0.7
MEASURED = {"error_pct": "measured_error_pct", "latency_ms": "measured_latency_ms", "size_bytes": "measured_size_bytes"}
"""Column of the measured value of each objective that the exported file changes."""


def verify_front(
    supernet: Supernet,
    data: ImageData,
    runtime: Runtime,
    profile: HardwareProfile,
    frame: pd.DataFrame,
    folder: Path,
    *,
    objectives: Sequence[str] = ("error_pct", "latency_ms", "size_bytes"),
    constraints: Sequence[str] = (),
    architecture: Architecture | None = None,
    calibration: str = "min-max",
    max_models: int = 10,
    num_threads: int = 2,
    name: str = "verified.json",
    models: str = "front",
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Export, run and time the front of a study until it holds; writes `models`/<index>/ and `name` in `folder`.

    Args:
        frame: the study's rows, as `run_search` returns them.
        calibration: as the search was given it.
        max_models: how many candidates are measured at most; they are spread over the front.

    Returns:
        One row a measured candidate: index, on_front, reason, measured values, test error, agreement with torch.

    Raises:
        UserError: the runtime lacks a precision of the profile; nothing is written.
    """
    check_runtime(runtime, profile)
    started, report = time.perf_counter(), progress or (lambda done, total, message="": None)
    chosen = [OBJECTIVES[objective] for objective in objectives]
    limits = [parse_constraint(text, OBJECTIVES) for text in constraints]
    candidates = CandidateSpace(supernet.space, precisions=profile.precisions, fixed=architecture)
    evaluator = target_evaluator(supernet, data, profile, calibration=calibration)
    genes = [choice.name for choice in candidates.choices]
    current = frame[frame["state"] == "complete"].copy()
    measured: dict[int, dict[str, Any]] = {}
    policies = uniform_rows(current, candidates)
    with torch_threads(num_threads):
        while waiting := _unmeasured(current, measured, chosen, limits, list(policies), max_models - len(measured)):
            for index in waiting:
                row = current[current["index"] == index].iloc[0]
                candidate = candidates.candidate({gene: _plain(row[gene]) for gene in genes})
                export_model(evaluator, candidate, folder / models / str(index), objectives=_floats(row, OBJECTIVES))
                report(0.6 * len(measured) / max_models, 1, f"exporting model {index}")
                measured[index] = {
                    "index": index,
                    "policy": policies.get(index, "searched"),
                    "simulated": _classes(evaluator, candidate, data.validation),
                }
            paths = [folder / models / str(index) / "model.onnx" for index in waiting]
            sessions = [runtime.load(path) for path in paths]
            step = _step(report, 0.6 * (1 - len(waiting) / len(measured)), 0.6, len(waiting))
            classes = _run_all(sessions, [data.validation], data, evaluator.batch_size, step, num_threads)
            stats = time_sessions(sessions, data, profile.batch_size)
            for index, path, found, latency in zip(waiting, paths, classes, stats, strict=True):
                result = measured[index]
                result |= _measurements(path, found[0], result.pop("simulated"), data.validation, latency)
                for objective, column in MEASURED.items():
                    current.loc[current["index"] == index, objective] = result[column]
        rows = _judge(current, measured, chosen, limits)
        members = [row for row in rows if row["on_front"] or row["policy"] != "searched"]
        sessions = [runtime.load(folder / models / str(row["index"]) / "model.onnx") for row in members]
        for member, latency in zip(members, time_sessions(sessions, data, profile.batch_size), strict=True):
            member["repeated_latency_ms"] = latency.median_ms
        step = _step(report, 0.6, 1.0, len(members))
        classes = _run_all(sessions, [data.test], data, evaluator.batch_size, step, num_threads)
        for member, found in zip(members, classes, strict=True):
            member["test_error_pct"] = _error_pct(found[0], data.test)
    content = describe_target(runtime, profile) | {"seconds": time.perf_counter() - started, "rows": rows}
    part = folder / f"{name}.part"
    part.write_text(json.dumps(content, indent=1))
    part.replace(folder / name)
    report(1, 1, "done")
    return pd.DataFrame(rows)


def describe_target(runtime: Runtime, profile: HardwareProfile) -> dict[str, Any]:
    """Where and when files were measured, as JSON data."""
    return {
        "device": asdict(profile.device),
        "runtime": f"{runtime.name} {runtime.version}",
        "num_threads": runtime.num_threads,
        "batch_size": profile.batch_size,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def measure_files(
    paths: Sequence[Path],
    simulated: Sequence[np.ndarray],
    data: ImageData,
    runtime: Runtime,
    *,
    batch_size: int,
    num_threads: int,
    step: Callable[[], None],
) -> list[dict[str, float]]:
    """Run and time model files: latencies interleaved, validation and test error, size, agreement with `simulated`.

    `simulated` are the classes of the validation images in torch; `step` is called after each file has run.
    """
    sessions = [runtime.load(path) for path in paths]
    found = _run_all(sessions, [data.validation, data.test], data, batch_size, step, num_threads)
    stats = time_sessions(sessions, data, batch_size)
    return [
        _measurements(path, classes, expected, data.validation, latency)
        | {"test_error_pct": _error_pct(test, data.test)}
        for path, (classes, test), expected, latency in zip(paths, found, simulated, stats, strict=True)
    ]


def check_runtime(runtime: Runtime, profile: HardwareProfile) -> None:
    """UserError when the runtime can't execute every precision that the profile was measured in."""
    lacking = [precision for precision in profile.precisions if precision not in runtime.precisions]
    if lacking:
        raise UserError(
            f"runtime '{runtime.name}' {runtime.version} lacks {', '.join(lacking)} of profile '{profile.name}'; "
            "install a version that has it, or profile this one with `nas profile`"
        )


def uniform_rows(frame: pd.DataFrame, candidates: CandidateSpace) -> dict[int, str]:
    """For a search of precisions alone: index -> precision of the rows that use one precision throughout.

    They are always measured, so that the searched policies can be compared with them.
    """
    if candidates.fixed is None:
        return {}
    uniform = {p: candidates.genotype(candidates.uniform(candidates.fixed, p)) for p in candidates.precisions}
    genes = [choice.name for choice in candidates.choices]
    rows = {int(row["index"]): {gene: _plain(row[gene]) for gene in genes} for _, row in frame.iterrows()}
    return {index: p for p, genotype in uniform.items() for index, row in rows.items() if row == genotype}


def _unmeasured(
    current: pd.DataFrame,
    measured: dict[int, dict[str, Any]],
    objectives: Sequence[Objective],
    limits: Sequence[Constraint],
    always: Sequence[int],
    room: int,
) -> list[int]:
    """What is still to measure: `always`, then members of the front, spread over its latency when they are too many."""
    must = [index for index in always if index not in measured]
    front = current[on_front(current, objectives, limits)].sort_values("latency_ms")
    waiting = [int(index) for index in front["index"] if int(index) not in measured and int(index) not in must]
    room -= len(must)
    if len(waiting) > room:
        chosen = np.unique(np.linspace(0, len(waiting) - 1, max(room, 0)).round().astype(int))
        waiting = [waiting[i] for i in chosen]
    return must + waiting


def _judge(
    current: pd.DataFrame,
    measured: dict[int, dict[str, Any]],
    objectives: Sequence[Objective],
    limits: Sequence[Constraint],
) -> list[dict[str, Any]]:
    """Mark the front among the measured candidates, and say why the others are not on it."""
    known = current[current["index"].isin(measured)]
    members = set(known[on_front(known, objectives, limits)]["index"])
    rows = []
    for index, row in measured.items():
        values = known[known["index"] == index].iloc[0]
        broken = [str(limit) for limit in limits if limit.violation(values[limit.objective]) > 0]
        reason = (
            f"measured values break {', '.join(broken)}" if broken else "another measured model is better in everything"
        )
        rows.append({**row, "on_front": index in members, "reason": "" if index in members else reason})
    return rows


def _measurements(
    path: Path, classes: np.ndarray, simulated: np.ndarray, split: Split, latency: LatencyStats
) -> dict[str, float]:
    return {
        "measured_latency_ms": latency.median_ms,
        "measured_latency_spread_pct": latency.spread_pct,
        "measured_error_pct": _error_pct(classes, split),
        "measured_size_bytes": path.stat().st_size,
        "agreement_pct": 100 * float(np.mean(classes == simulated)),
    }


def _error_pct(classes: np.ndarray, split: Split) -> float:
    return 100 - 100 * float(np.mean(classes == split.labels_B.numpy()))


def _classes(evaluator: Evaluator, candidate: Any, split: Split) -> np.ndarray:
    return predict_classes(evaluator.network(candidate), split.images_BCHW, evaluator.data).numpy()


def run_classes(session: Session, split: Split, data: ImageData, batch_size: int) -> np.ndarray:
    """Top-1 classes that a model file gives, at the target's batch; a last, smaller batch is filled up."""
    found = []
    for images_BCHW in split.images_BCHW.split(batch_size * 64):
        x_BCHW = normalize(images_BCHW, data).contiguous()
        for part_BCHW in x_BCHW.split(batch_size):
            filled = torch.cat([part_BCHW, part_BCHW[-1:].expand(batch_size - len(part_BCHW), -1, -1, -1)])
            logits_BC = session.run({INPUT: filled.numpy()})[0]
            found.append(logits_BC[: len(part_BCHW)].argmax(axis=1))
    return np.concatenate(found)


def _run_all(
    sessions: Sequence[Session],
    splits: Sequence[Split],
    data: ImageData,
    batch_size: int,
    step: Callable[[], None],
    num_threads: int,
) -> list[list[np.ndarray]]:
    """Classes of every session on every split; sessions run side by side."""

    def run(session: Session) -> list[np.ndarray]:
        found = [run_classes(session, split, data, batch_size) for split in splits]
        step()
        return found

    with ThreadPoolExecutor(num_threads) as pool:
        return list(pool.map(run, sessions))


def time_sessions(sessions: Sequence[Session], data: ImageData, batch_size: int) -> list[LatencyStats]:
    """Latencies at the target's batch, in turn."""
    images = data.validation.images_BCHW[:1].expand(batch_size, -1, -1, -1)
    inputs = {INPUT: normalize(images, data).contiguous().numpy()}
    samplers = [session.sampler(inputs) for session in sessions]
    return measure_interleaved(samplers, budget_s=TIMING_S_PER_MODEL * len(samplers))


def _step(report: Progress, start: float, end: float, count: int) -> Callable[[], None]:
    """Counts models that ran, as progress from `start` to `end` of the stage."""
    finished = 0

    def step() -> None:
        nonlocal finished
        finished += 1
        report(start + (end - start) * finished / count, 1, f"running model {finished} of {count}")

    return step


def _plain(value: Any) -> Any:
    """A gene's value as Python's own type: data frames hold numpy's."""
    return value.item() if isinstance(value, np.generic) else value


def _floats(row: pd.Series, names: Any) -> dict[str, float]:
    return {name: float(row[name]) for name in names if name in row}
