"""Members of a front, finetuned one after the other, exported, run and timed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hardware_profiles.profile import HardwareProfile
from hardware_profiles.runtimes import Runtime
from nas.data import ImageData
from nas.errors import UserError
from nas.evaluation import predict_classes
from nas.evaluator import Evaluator, target_evaluator, torch_threads
from nas.export import export_model, load_model
from nas.finetuning.loop import finetune_network, finetune_recipe
from nas.finetuning.options import FinetuneOptions
from nas.progress import Progress, no_progress
from nas.results import STUDY, beside, load_finetuned, replace_text
from nas.supernet import Supernet
from nas.training.options import TrainOptions
from nas.verify import describe_target, measure_files
from search_spaces.precision import Candidate

TRAINING_SHARE = 0.95
"""Of the stage's progress; measuring has the rest."""


def finetune_front(
    supernet: Supernet,
    data: ImageData,
    runtime: Runtime,
    profile: HardwareProfile,
    folder: Path,
    indices: Sequence[int],
    *,
    recipe: TrainOptions,
    options: FinetuneOptions,
    study: str = STUDY,
    calibration: str = "min-max",
    num_threads: int = 2,
    progress: Progress = no_progress,
) -> pd.DataFrame:
    """Finetune exported members of a run's front; writes `finetuned`/<index>/ and `finetuned.json` in `folder`.

    The files in `front` stay as they are. An interrupted call continues after the last whole epoch; a model that is
    finished isn't trained again.

    Args:
        indices: members whose folders verifying left in `front`.
        recipe: the supernet's.
        calibration: as the search was given it.

    Returns:
        One row a finetuned model, earlier ones included: index, FINETUNED of `nas.results`, repeated_latency_ms (of the
        file before finetuning, timed in turn with the one after), history of the training.

    Raises:
        UserError: a model was not exported, or was finetuned as another candidate; training fails.
    """
    evaluator = target_evaluator(supernet, data, profile, calibration=calibration)
    sources = {index: beside(folder, study, "front") / str(index) for index in indices}
    targets = {index: beside(folder, study, "finetuned") / str(index) for index in indices}
    candidates = {index: _candidate(source) for index, source in sources.items()}
    for index, target in targets.items():
        if target.exists() and _candidate(target)[0] != candidates[index][0]:
            raise UserError(f"'{target}' is another network than model {index} is now; --redo finetune")
    rows = (load_finetuned(folder, study=study) or {"rows": []})["rows"]
    waiting = [index for index, target in targets.items() if not target.exists()]
    for place, index in enumerate(waiting):
        _finetune(evaluator, *candidates[index], targets[index], recipe, options, _part(progress, place, len(waiting)))
    measured = {row["index"] for row in rows}
    fresh = [index for index in indices if index not in measured]
    with torch_threads(num_threads):
        rows += _measure(evaluator, runtime, profile, sources, targets, fresh, num_threads, progress)
    rows.sort(key=lambda row: row["index"])
    content = describe_target(runtime, profile) | {"recipe": finetune_recipe(recipe, options).to_json(), "rows": rows}
    replace_text(beside(folder, study, "finetuned.json"), json.dumps(content, indent=1) + "\n")
    progress(1, 1, "done")
    return pd.DataFrame(rows)


def _candidate(folder: Path) -> tuple[Candidate, dict[str, float]]:
    """What a model's folder holds: the candidate, and what the search saw of it."""
    try:
        content = json.loads((folder / "architecture.json").read_text(encoding="utf-8"))
        return Candidate.from_json(content), dict(content["objectives"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"'{folder}' holds no exported model ({error}); verify the run again with --redo verify"
        ) from None


def _finetune(
    evaluator: Evaluator,
    candidate: Candidate,
    objectives: dict[str, float],
    target: Path,
    recipe: TrainOptions,
    options: FinetuneOptions,
    progress: Progress,
) -> None:
    """Train one model and write its folder; what it has learnt after each epoch is beside it until then."""
    checkpoint = target.with_name(f"{target.name}.checkpoint.safetensors")

    def report(done: int, total: int, message: str) -> None:
        progress(done, total, f"model {target.name}, {message}")

    trained = finetune_network(
        evaluator, candidate, recipe=finetune_recipe(recipe, options), checkpoint=checkpoint, progress=report
    )
    export_model(evaluator, candidate, target, objectives=objectives, finetuned=trained)
    checkpoint.unlink()


def _measure(
    evaluator: Evaluator,
    runtime: Runtime,
    profile: HardwareProfile,
    sources: dict[int, Path],
    targets: dict[int, Path],
    indices: Sequence[int],
    num_threads: int,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Rows of models that are exported; each file is timed in turn with the one before finetuning."""
    data, images_BCHW = evaluator.data, evaluator.data.validation.images_BCHW
    folders = [sources[index] for index in indices] + [targets[index] for index in indices]
    simulated = [predict_classes(load_model(folder), images_BCHW, data).numpy() for folder in folders]
    num_run = 0

    def step() -> None:
        nonlocal num_run
        num_run += 1
        share = TRAINING_SHARE + (1 - TRAINING_SHARE) * num_run / len(folders)
        progress(share, 1, f"running file {num_run} of {len(folders)}")

    found = measure_files(
        [folder / "model.onnx" for folder in folders],
        simulated,
        data,
        runtime,
        batch_size=profile.batch_size,
        num_threads=num_threads,
        step=step,
    )
    rows = []
    for index, before, after in zip(indices, found[: len(indices)], found[len(indices) :], strict=True):
        values = {f"finetuned_{name.removeprefix('measured_')}": value for name, value in after.items()}
        description = json.loads((targets[index] / "architecture.json").read_text(encoding="utf-8"))
        repeated = {"repeated_latency_ms": before["measured_latency_ms"]}
        rows.append({"index": index, **values, **repeated, "history": description["finetuned"]["history"]})
    return rows


def _part(progress: Progress, place: int, count: int) -> Progress:
    """Progress of one of `count` trainings as a share of the stage."""

    def report(done: float, total: float, message: str = "") -> None:
        progress(TRAINING_SHARE * (place + done / total) / count, 1, message)

    return report
