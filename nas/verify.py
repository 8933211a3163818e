"""Measure what was promised: each member of the front is exported, run and timed, and judged by its own file.

Membership and constraints go by measured latency and the file's validation accuracy. A member that falls out is
replaced by the next candidates until the front holds. Test accuracy is reported last and chooses nothing.

Where the target isn't at hand the front is exported unmeasured; what another machine measured on the files is recorded.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from hardware_profiles.measure import InterleavedTiming, LatencyStats
from hardware_profiles.profile import HardwareProfile
from hardware_profiles.runtimes import Runtime, Session
from nas.config import DEFAULT_OBJECTIVES, write_text
from nas.data import ImageData, Split
from nas.evaluation import normalize, scores_of
from nas.evaluator import torch_threads
from nas.front_models import FrontModels, Outputs, error_pct, measurements
from nas.onnx_model import INPUT
from nas.progress import Progress, no_progress
from nas.supernet import Supernet
from nas.target import check_runtime, name_target
from search_spaces import Architecture

TIMING_S_PER_MODEL = 0.7
MORE_MOMENTS, SLOWER = 4, 1.1
"""While models are slower than predicted by this factor (median), they are timed at so many more moments.

Neighbours only slow a machine down, for a minute or longer: ten models once took 1.4 to 1.6 times what was predicted
and what they took a minute later. A profile measures for minutes and finds quiet moments.
"""


def verify_front(
    supernet: Supernet,
    data: ImageData,
    runtime: Runtime,
    profile: HardwareProfile,
    frame: pd.DataFrame,
    folder: Path,
    *,
    objectives: Sequence[str] = DEFAULT_OBJECTIVES,
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
        frame, calibration, max_models, ...: as `FrontModels` takes them.

    Returns:
        One row a measured candidate: index, on_front, reason, measured values, test error, agreement with torch.

    Raises:
        UserError: the runtime lacks a precision of the profile; nothing is written.
    """
    check_runtime(runtime, profile)
    found = FrontModels(
        supernet,
        data,
        profile,
        frame,
        folder / models,
        objectives=objectives,
        constraints=constraints,
        architecture=architecture,
        calibration=calibration,
        max_models=max_models,
    )
    return measure_front(found, runtime, profile, folder / name, num_threads=num_threads, progress=progress)


def measure_front(
    models: FrontModels,
    runtime: Runtime,
    profile: HardwareProfile,
    path: Path,
    *,
    num_threads: int = 2,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Export, run and time models until the front holds; writes the file `path` and returns its rows."""
    started, report, data, batch_size = time.perf_counter(), progress or no_progress, models.data, profile.batch_size
    with torch_threads(num_threads):
        while waiting := models.waiting():
            for index in waiting:
                models.export(index)
                report(0.6 * len(models.measured) / models.max_models, 1, f"exporting model {index}")
            simulated = [models.simulated(index, data.validation) for index in waiting]
            sessions = [runtime.load(models.path(index)) for index in waiting]
            share = len(waiting) / (len(models.measured) + len(waiting))
            step = _step(report, 0.6 * (1 - share), 0.6, len(waiting))
            expected_ms = [models.predicted_ms(index) for index in waiting]
            outputs, stats = _run_and_time(
                sessions, [data.validation], data, batch_size, step, num_threads, expected_ms=expected_ms
            )
            for index, (found,), expected, latency in zip(waiting, outputs, simulated, stats, strict=True):
                models.add(index, found, expected, latency)
        rows = models.judge()
        members = [row for row in rows if row["on_front"] or row["policy"] != "searched"]
        sessions = [runtime.load(models.path(row["index"])) for row in members]
        step = _step(report, 0.6, 1.0, len(members))
        outputs, stats = _run_and_time(sessions, [data.test], data, batch_size, step, num_threads)
        for member, (found,), latency in zip(members, outputs, stats, strict=True):
            member["repeated_latency_ms"] = latency.latency_ms
            member["test_error_pct"] = error_pct(found.classes, data.test)
    _write_rows(path, describe_target(runtime, profile) | {"seconds": time.perf_counter() - started}, rows)
    report(1, 1, "done")
    return pd.DataFrame(rows)


def export_unmeasured(
    models: FrontModels,
    profile: HardwareProfile,
    path: Path,
    *,
    reason: str,
    num_threads: int = 2,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Export the front by searched values, for the profile's target to measure; writes the file `path`.

    Args:
        reason: why it isn't measured here.

    Returns:
        One row an exported candidate: index, policy.
    """
    report, waiting, rows = progress or no_progress, models.waiting(), []
    with torch_threads(num_threads):
        for place, index in enumerate(waiting):
            report(place / len(waiting), 1, f"exporting model {index}")
            rows.append(models.export(index))
    _write_rows(path, {"target": name_target(profile), "reason": reason, "date": _now()}, rows)
    report(1, 1, "done")
    return pd.DataFrame(rows)


@dataclass(frozen=True, kw_only=True)
class FileResult:
    """What a machine found out about a model file."""

    validation: np.ndarray
    """Top-1 classes of the validation images, in their order."""
    test: np.ndarray
    """The same of the test images."""
    latency: LatencyStats


def record_front(
    models: FrontModels,
    results: Mapping[int, FileResult],
    target: Mapping[str, Any],
    path: Path,
    *,
    num_threads: int = 2,
) -> pd.DataFrame:
    """Judge the front by results from elsewhere; writes the file `path` and returns its rows, as `verify_front` does.

    Args:
        results: index -> of the file that `export_unmeasured` wrote. Nothing replaces members that fall out.
        target: where and when they were measured, as `describe_target` says it.
    """
    with torch_threads(num_threads):
        for index, result in results.items():
            expected = models.simulated(index, models.data.validation)
            models.add(index, Outputs(classes=result.validation), expected, result.latency)
    rows = models.judge()
    for row in rows:
        if row["on_front"] or row["policy"] != "searched":
            row["test_error_pct"] = error_pct(results[row["index"]].test, models.data.test)
    _write_rows(path, target, rows)
    return pd.DataFrame(rows)


def _write_rows(path: Path, about: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    write_text(path, json.dumps({**about, "rows": rows}, indent=1))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def describe_target(runtime: Runtime, profile: HardwareProfile) -> dict[str, Any]:
    """Where and when files were measured, as JSON data."""
    return {
        "device": asdict(profile.device),
        "runtime": f"{runtime.name} {runtime.version}",
        "runtime_device": runtime.device,
        "num_threads": runtime.num_threads,
        "batch_size": profile.batch_size,
        "date": _now(),
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
    found, stats = _run_and_time(sessions, [data.validation, data.test], data, batch_size, step, num_threads)
    return [
        measurements(path, validation, expected, data.validation, latency)
        | {"test_error_pct": error_pct(test.classes, data.test)}
        for path, (validation, test), expected, latency in zip(paths, found, simulated, stats, strict=True)
    ]


def run_file(session: Session, split: Split, data: ImageData, batch_size: int) -> Outputs:
    """What a model file gives, at the target's batch; a last, smaller batch is filled up."""
    found = []
    for images_BCHW in split.images_BCHW.split(batch_size * 64):
        x_BCHW = normalize(images_BCHW, data).contiguous()
        padding = x_BCHW[-1:].expand(-len(x_BCHW) % batch_size, -1, -1, -1)
        parts = torch.cat([x_BCHW, padding]).split(batch_size)
        logits_BK = np.concatenate([outputs[0] for outputs in session.run_all([{INPUT: p.numpy()} for p in parts])])
        found.append(logits_BK[: len(x_BCHW)])
    logits_NK = np.concatenate(found)
    scores = scores_of(torch.from_numpy(logits_NK), split)
    return Outputs(classes=logits_NK.argmax(axis=1), cross_entropy=scores.cross_entropy)


def _run_and_time(
    sessions: Sequence[Session],
    splits: Sequence[Split],
    data: ImageData,
    batch_size: int,
    step: Callable[[], None],
    num_threads: int,
    *,
    expected_ms: Sequence[float] = (),
) -> tuple[list[list[Outputs]], list[LatencyStats]]:
    """Outputs of every session on every split, sessions side by side; and latencies, timed before and after that.

    Where sessions are slower than `expected_ms`, they are timed at `MORE_MOMENTS`.
    """

    def run(session: Session) -> list[Outputs]:
        found = [run_file(session, split, data, batch_size) for split in splits]
        step()
        return found

    timing, moment_s = _timing(sessions, data, batch_size), TIMING_S_PER_MODEL * len(sessions) / 2
    timing.take(moment_s)
    with ThreadPoolExecutor(num_threads) as pool:
        outputs = list(pool.map(run, sessions))
    timing.take(moment_s)
    for _ in range(MORE_MOMENTS):
        ratios = [found.latency_ms / ms for found, ms in zip(timing.stats(), expected_ms, strict=False)]
        if not ratios or np.median(ratios) <= SLOWER:
            break
        time.sleep(moment_s)
        timing.take(moment_s)
    return outputs, timing.stats()


def time_sessions(
    sessions: Sequence[Session], data: ImageData, batch_size: int, *, model_s: float = TIMING_S_PER_MODEL
) -> list[LatencyStats]:
    """Latencies at the target's batch, in turn, of `model_s` seconds for each of them."""
    timing = _timing(sessions, data, batch_size)
    timing.take(model_s * len(sessions))
    return timing.stats()


def _timing(sessions: Sequence[Session], data: ImageData, batch_size: int) -> InterleavedTiming:
    images = data.validation.images_BCHW[:1].expand(batch_size, -1, -1, -1)
    inputs = {INPUT: normalize(images, data).contiguous().numpy()}
    return InterleavedTiming([session.sampler(inputs) for session in sessions])


def _step(report: Progress, start: float, end: float, count: int) -> Callable[[], None]:
    """Counts models that ran, as progress from `start` to `end` of the stage."""
    finished = 0

    def step() -> None:
        nonlocal finished
        finished += 1
        report(start + (end - start) * finished / count, 1, f"running model {finished} of {count}")

    return step
