"""Run folders made up for tests: every file a run leaves, but for weights and models."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hardware_profiles.runtimes.onnx_runtime import OnnxRuntime
from nas.error_estimate import ErrorEstimate
from nas.search.objectives import Constraint, Objective
from nas.search.pareto import on_front
from nas.search.study import Row, Study
from search_spaces.hybrid import hybrid_tiny
from search_spaces.precision import Candidate, CandidateSpace
from tests.hardware_profiles.profiles import make_profile

OBJECTIVES = (
    Objective("estimated_error_pct", unit="%"),
    Objective("latency_ms", unit="ms", expensive=False),
    Objective("size_bytes", unit="B", expensive=False),
)
MAX_MODELS = 10
ESTIMATE = ErrorEstimate(constant=2.0, per_error=0.3, per_nat=15.0)
SPACE = CandidateSpace(hybrid_tiny(num_channels=1), precisions=OnnxRuntime.precisions)


def make_run(
    folder: Path, *, num_rows: int = 12, trained: bool = True, profiled: bool = True, verified: bool = True
) -> Path:
    """Write a run whose search measured `num_rows` candidates, the last of which failed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("data: fashion-mnist\nspace: hybrid-tiny\nhardware: local\n")
    if trained:
        (folder / "supernet.json").write_text(json.dumps(_supernet()))
    if profiled:
        make_profile(name="local", space="hybrid-tiny").save(folder / "profile.json")
    study, rows = make_study(folder / "study.db", num_rows=num_rows)
    if verified:
        write_verified(folder, study)
        for index in np.flatnonzero(on_front(study.frame(), OBJECTIVES))[:MAX_MODELS]:
            _write_member(folder / "front" / str(index), rows[index])
    return folder


def make_study(path: Path, *, num_rows: int, constraints: Sequence[Constraint] = ()) -> tuple[Study, list[Row]]:
    """A study of random candidates with plausible values."""
    rng = np.random.default_rng(0)
    study = Study.open(path, SPACE.choices, OBJECTIVES, {"seed": 0}, constraints=constraints)
    rows = []
    for index in range(num_rows):
        genotype = SPACE.canonical({choice.name: rng.choice(choice.values).item() for choice in SPACE.choices})
        rows.append(_row(index, SPACE.candidate(genotype), rng, failed=index == num_rows - 1))
        study.add(rows[-1])
    return study, rows


def write_verified(folder: Path, study: Study) -> None:
    """`verified.json` for the front of `study` and one candidate that fell out."""
    frame, rng = study.frame(), np.random.default_rng(1)
    mask = on_front(frame, OBJECTIVES)
    mask[np.flatnonzero(mask)[MAX_MODELS:]] = False
    fallen = np.flatnonzero(~mask & frame["error_pct"].notna())[:1].tolist()
    rows = [
        {
            "index": index,
            "on_front": bool(mask[index]),
            "reason": "" if mask[index] else "dominated by measured values",
            "measured_latency_ms": frame["latency_ms"][index] * rng.normal(1.02, 0.05),
            "measured_latency_spread_pct": 1.5,
            "measured_error_pct": frame["error_pct"][index] + rng.normal(0.1, 0.2),
            "measured_estimated_error_pct": frame["estimated_error_pct"][index] + rng.normal(0.1, 0.1),
            "measured_cross_entropy": rng.uniform(0.3, 0.5),
            "measured_size_bytes": int(frame["size_bytes"][index]) + 2000,
            "test_error_pct": frame["error_pct"][index] + rng.normal(0.5, 0.3),
            "agreement_pct": 99.7,
        }
        for index in [*np.flatnonzero(mask).tolist(), *fallen]
    ]
    content = {"device": {"processor": "Test CPU"}, "date": "2026-01-01", "runtime": "onnxruntime", "seconds": 42.0}
    name = f"verified{Path(study.where).stem.removeprefix('study')}.json"
    (folder / name).write_text(json.dumps({**content, "rows": rows}))


def _row(index: int, candidate: Candidate, rng: np.random.Generator, *, failed: bool) -> Row:
    specs = SPACE.space.blocks(candidate.architecture)
    factor = {"fp32": 1.0, "int8": 0.7, "int8-dynamic": 0.8, "w8": 1.1, "w4": 1.0}
    macs = [spec.reads[0].shape[0] ** 2 * spec.reads[0].shape[1] ** 2 * 4.0 for spec in specs]
    latency_ms = sum(m * factor[candidate.policy[spec.name]] for m, spec in zip(macs, specs, strict=True)) / 5e6 + 0.02
    error_pct = 8 + 3 / (latency_ms + 0.1) + float(rng.normal(0, 0.4))
    params = sum(4.0 * spec.reads[0].shape[0] ** 2 for spec in specs)
    cross_entropy = 0.04 * error_pct
    estimated = ESTIMATE(error_pct, cross_entropy)
    values = {"estimated_error_pct": estimated, "latency_ms": latency_ms, "size_bytes": params * 3 + 20_000}
    extras = {"error_pct": error_pct, "cross_entropy": cross_entropy, "macs": sum(macs), "params": params}
    return Row(
        index=index,
        batch=index // 10,
        genotype=SPACE.genotype(candidate),
        values={} if failed else values,
        extras={} if failed else extras,
        predicted={"estimated_error_pct": estimated + float(rng.normal(0, 2 / (1 + index // 10)))}
        if index >= 10
        else {},
        seconds=1.5,
        host="test",
        reason="the loss is not finite" if failed else "",
    )


def _write_member(folder: Path, row: Row) -> None:
    candidate = SPACE.candidate(row.genotype)
    specs = SPACE.space.blocks(candidate.architecture)
    blocks = [{**spec.to_json(), "precision": candidate.policy[spec.name]} for spec in specs]
    folder.mkdir(parents=True)
    content = {**candidate.to_json(), "blocks": blocks, "objectives": dict(row.values)}
    (folder / "architecture.json").write_text(json.dumps(content))


def _supernet() -> dict[str, Any]:
    steps = range(0, 1000, 10)
    history = [
        {
            "step": s,
            "epoch": s / 400,
            "loss": 0.5 + 1.8 * float(np.exp(-s / 150)) + 0.1 * ((s // 10) % 3),
            "learning_rate": 1e-3,
        }
        for s in steps
    ]
    accuracy = {
        name: {"validation_pct": value, "test_pct": value - 0.4}
        for name, value in (("smallest", 82.1), ("middle", 87.3), ("largest", 89.6))
    }
    return {
        "space": "hybrid-tiny",
        "num_channels": 1,
        "num_classes": 10,
        "options": {"num_epochs": 2, "batch_size": 128},
        "history": history,
        "accuracy": accuracy,
        "seconds": 158.2,
        "versions": {"torch": "2.14.0", "hybridnas": "0.1.0"},
    }
