"""The whole measurement: stand-alone trainings, inherited accuracies, how well these rank those."""

import json
import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hardware_profiles.device import describe_device
from nas.data import ImageData
from nas.error_estimate import ErrorEstimate
from nas.errors import UserError
from nas.evaluation import predict_logits, recalibrate, score, scores_of
from nas.fidelity.options import FidelityOptions
from nas.fidelity.ranking import Estimate, fidelity_figures, mean_over_seeds, ranked
from nas.fidelity.reuse import check_conditions, conditions, take_over
from nas.fidelity.rows import INHERITED, Rows, load_rows
from nas.fidelity.sampling import Member, Training, plan_trainings
from nas.fidelity.standalone import Load, discard, standalone_options, train_all
from nas.progress import Progress, no_progress
from nas.provenance import provenance
from nas.results import replace_text
from nas.supernet import Supernet
from nas.training import TrainOptions
from nas.training.batches import steps_per_epoch
from search_spaces import SearchSpace

CSV, JSON, FOLDER = "fidelity.csv", "fidelity.json", "fidelity"


def measure_fidelity(
    supernet: Supernet,
    data: ImageData,
    folder: Path,
    members: Sequence[Member],
    *,
    options: FidelityOptions,
    recipe: TrainOptions,
    load: Load,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Train `members` alone and compare with what they inherit; returns what `fidelity.json` holds.

    Writes `fidelity.csv` and `fidelity.json` beside the supernet's files in `folder`. Trainings that have a row are
    not repeated, one that was interrupted continues from its checkpoint. All rows of the file are ranked.

    Args:
        members: from `choose_members`, of the supernet's space.
        recipe: the supernet's; stand-alone trainings use it, with other epochs and seeds.
        load: gives a worker process data and space.

    Raises:
        UserError: a training failed, a worker was killed, a file is damaged, or the disk is full.
    """
    plan = plan_trainings(members, options)
    rows = Rows(folder / CSV, supernet.space)
    alone = conditions(supernet.space, data, recipe, num_epochs=options.epochs_alone)
    if options.alone is not None:
        check_alone(options.alone, alone)
        take_over(rows, plan, options.alone / CSV)
    _train_missing(plan, rows, folder / FOLDER, options, recipe, load, progress)
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    frame = rows.finish(inherited_scores(supernet, data, members, progress))
    figures = fidelity_figures(frame, seed=options.seed)
    one_alone = standalone_options(recipe, num_epochs=options.epochs_alone, seed=options.seed)
    num_standalone_steps = options.epochs_alone * steps_per_epoch(data, one_alone)
    budget = training_budget(folder, supernet.space) | {"standalone_steps": num_standalone_steps}
    content = _about(frame, figures, options) | {"budget": budget, "alone": alone}
    text = json.dumps(content, indent=1) + "\n"
    replace_text(folder / JSON, text)
    return dict(json.loads(text))


def check_alone(folder: Path, wanted: dict[str, Any]) -> None:
    """UserError when `folder` is not that of a finished `nas fidelity` under the `conditions` that are wanted."""
    about = load_fidelity(folder)
    if about is None:
        raise UserError(f"{folder} has no {JSON}; give the folder of a finished `nas fidelity`")
    check_conditions(folder, about, wanted)


def is_complete(folder: Path, plan: Sequence[Training]) -> bool:
    """Has every training a row with all scores, and is there a summary?"""
    if not ((folder / CSV).is_file() and (folder / JSON).is_file()):
        return False
    rows = load_rows(folder / CSV).dropna(subset=list(INHERITED))
    done = set(zip(rows["index"], rows["seed"], strict=True))
    return all((training.member.index, training.seed) in done for training in plan)


def load_fidelity(folder: Path) -> dict[str, Any] | None:
    """What `fidelity.json` holds; None before there is one. UserError when it is damaged."""
    path = folder / JSON
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for figure in content["figures"].values():
            Estimate(**figure)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is damaged; remove it and run `nas fidelity` again") from None
    return dict(content)


def training_budget(folder: Path, space: SearchSpace) -> dict[str, float | None]:
    """Optimizer steps of the supernet, as far as `supernet.json` says, and how many that is a sub-network."""
    history = json.loads((folder / "supernet.json").read_text(encoding="utf-8")).get("history") or []
    num_steps = history[-1].get("step") if history else None
    share = None if num_steps is None else num_steps / space.num_architectures()
    return {"supernet_steps": num_steps, "steps_a_sub_network": share}


def inherited_scores(
    supernet: Supernet, data: ImageData, members: Sequence[Member], progress: Progress = no_progress
) -> dict[int, tuple[float, ...]]:
    """The columns `INHERITED` of `nas.fidelity.rows` by index; estimates are fitted to all members."""
    validation_N, test_N, misses_NI = [], [], []
    for place, member in enumerate(members):
        progress(1, 1, f"inherited accuracy {place + 1}/{len(members)}")
        network = recalibrate(supernet.extract(member.architecture), data)
        logits_BK = predict_logits(network, data.test.images_BCHW, data)
        validation_N.append(score(network, data.validation, data).accuracy_pct)
        test_N.append(scores_of(logits_BK, data.test))
        misses_NI.append((logits_BK.argmax(dim=1) != data.test.labels_B).numpy())
    estimate = ErrorEstimate.fit(np.array(misses_NI), np.array([test.cross_entropy for test in test_N]))
    return {
        member.index: (
            *(validation_pct, test.accuracy_pct, test.cross_entropy, test.true_class_pct),
            estimate(100 - test.accuracy_pct, test.cross_entropy),
        )
        for member, validation_pct, test in zip(members, validation_N, test_N, strict=True)
    }


def _train_missing(
    plan: Sequence[Training],
    rows: Rows,
    folder: Path,
    options: FidelityOptions,
    recipe: TrainOptions,
    load: Load,
    progress: Progress,
) -> None:
    """Work is counted in multiply-accumulates, so that the estimate of the time left knows small from large."""
    missing = [training for training in plan if (training.member.index, training.seed) not in rows.done]
    total = float(sum(training.member.macs for training in plan))
    left = {training: float(training.member.macs) for training in missing}

    def report(training: Training, share: float) -> None:
        left[training] = training.member.macs * (1 - share)
        num_done = len(plan) - len(missing) + sum(macs == 0 for macs in left.values())
        progress(total - sum(left.values()), total, f"{num_done}/{len(plan)} networks trained alone")

    if not missing:
        return
    results = train_all(
        missing,
        load,
        folder,
        recipe=recipe,
        num_epochs=options.epochs_alone,
        num_workers=options.workers or describe_device().num_cores,
        progress=report,
    )
    with closing(results):
        for training, values in results:
            rows.append(training, values)
            discard(training, folder)
            report(training, 1.0)


def _about(frame: pd.DataFrame, figures: dict[str, Estimate], options: FidelityOptions) -> dict[str, Any]:
    return {
        "figures": {name: figure.to_json() for name, figure in figures.items()},
        "num_ranked": len(ranked(frame).macs_N),
        "num_seeds_averaged": int(mean_over_seeds(frame).query("role == 'sampled'")["num_seeds"].min()),
        "num_trainings": len(frame),
        "seeds": sorted({int(seed) for seed in frame["seed"]}),
        "options": options.to_json(),
    } | provenance(("torch", "scipy"))
