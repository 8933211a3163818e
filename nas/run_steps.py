"""Stages of a run, and what they work on, called with what its options say."""

from collections.abc import Sequence

import pandas as pd

from hardware_profiles.profile import HardwareProfile
from nas.candidates import run_search
from nas.finetuning.front import finetune_front
from nas.finetuning.options import FinetuneOptions
from nas.front_models import FrontModels
from nas.progress import Progress
from nas.results import study_location
from nas.run_folder import RunFolder
from nas.run_inputs import find_executor
from nas.supernet import Supernet
from nas.target import target_runtime


def search(
    run: RunFolder, supernet: Supernet, profile: HardwareProfile, inputs: dict[str, str], progress: Progress
) -> pd.DataFrame:
    config = run.config
    study, name = study_location(run.folder, run.study_path.name, config.study)
    return run_search(
        supernet,
        run.data,
        profile,
        study=study,
        study_name=name,
        objectives=config.objectives,
        constraints=config.constraints,
        focus=config.focus,
        num_evaluations=config.num_evaluations,
        searcher=config.searcher,
        seed=config.seed,
        architecture=run.fixed,
        num_images=config.num_images,
        calibration=config.calibration,
        time_limit_s=config.time_limit,
        patience=config.patience,
        executor=find_executor(config),
        settings=inputs,
        progress=progress,
    )


def finetune(
    run: RunFolder, profile: HardwareProfile, chosen: Sequence[int], options: FinetuneOptions, progress: Progress
) -> None:
    finetune_front(
        load_supernet(run),
        run.data,
        target_runtime(profile),
        profile,
        run.folder,
        chosen,
        recipe=run.train_options,
        options=options,
        study=run.study_path.name,
        calibration=run.config.calibration,
        progress=progress,
    )


def front_models(run: RunFolder, frame: pd.DataFrame, profile: HardwareProfile) -> FrontModels:
    """What of a study's rows is exported, and judged by what was measured on the files."""
    return FrontModels(
        load_supernet(run),
        run.data,
        profile,
        frame,
        run.models_path,
        objectives=run.config.objectives,
        constraints=run.config.constraints,
        architecture=run.fixed,
        calibration=run.config.calibration,
        max_models=run.config.max_models,
    )


def load_supernet(run: RunFolder) -> Supernet:
    """The trained supernet."""
    return Supernet.read(run.space, run.folder / "supernet.safetensors")
