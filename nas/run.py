"""A run: the stages from a data set to verified models, each reused where it is there."""

import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

import nas
from hardware_profiles.profile import HardwareProfile
from nas.config import RunConfig
from nas.data import ImageData
from nas.errors import UserError
from nas.evaluator import target_evaluator
from nas.fidelity.measure import check_alone, is_complete, load_fidelity, measure_fidelity
from nas.fidelity.options import FidelityOptions
from nas.fidelity.reuse import conditions
from nas.fidelity.sampling import choose_members, plan_trainings
from nas.finetuning.loop import finetune_recipe
from nas.finetuning.options import FinetuneOptions
from nas.processes import is_launched, is_main
from nas.progress import Progress, no_progress, rich_progress
from nas.report import write_report
from nas.results import (
    load_finetuned,
    load_results,
    load_verified,
    select,
    unverified_note,
    write_pareto_csv,
)
from nas.run_folder import RunFolder
from nas.run_inputs import find_architecture, load_quietly, make_profile, profile_inputs
from nas.run_steps import finetune, front_models, load_supernet, search
from nas.search.objectives import parse_constraint
from nas.sensitivity_tables import add_sensitivity, front_member, has_sensitivity, load_sensitivity
from nas.stages import Stages, hash_file, hash_rows, hash_text
from nas.supernet import Supernet
from nas.tables import describe_profile, describe_supernet, describe_verified
from nas.target import OtherTargetError, target_runtime
from nas.training import train_supernet
from nas.training.options import WITHOUT_INFLUENCE, TrainOptions
from nas.verify import FileResult, export_unmeasured, measure_front, record_front

ELSEWHERE = {"measured": "elsewhere"}
"""Of a front that another device measured."""

STAGES_OF_A_STUDY = ("search", "verify", "finetune")
"""Those that the search of one architecture's precisions has of its own."""


class Run(RunFolder):
    """The stages of one run. Each runs what it needs first, and is quick when it was done before.

    Raises:
        UserError, SpaceError, ProfileError: an option can't be, or a stage that is there was made from other inputs.
    """

    def __init__(self, folder: Path, config: RunConfig, *, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        super().__init__(folder, config, console=self._console)
        self.stages = Stages(folder)

    def redo(self, stage: str) -> None:
        """Set the outputs of a stage, and of those made from it, aside."""
        if stage == "search" and self.config.study is not None:
            raise UserError(f"others may use the study at {self.config.study}; use a --run folder of another name")
        aside = self.stages.redo(stage + (self.suffix if stage in STAGES_OF_A_STUDY else ""))
        if aside is not None:
            self._say(f"{stage}: earlier results are in {aside}")

    def profile(self) -> HardwareProfile:
        """The target's profile: that of the run, else measured here, or copied from the one that is named."""
        path = self.folder / "profile.json"
        inputs = profile_inputs(self.config, self.space)
        self.stages.check("profile", inputs)
        if not self.stages.is_done("profile"):
            with self._stage("profile", inputs) as progress:
                make_profile(self.config, self.space, progress).save(path, overwrite=True)
        profile = HardwareProfile.load(path)
        self._say(describe_profile(profile))
        return profile

    def train(self) -> Supernet:
        """The trained supernet."""
        inputs = self._train_inputs()
        self.stages.check("train", inputs)
        num_epochs = self.train_options.num_epochs
        if not self.stages.is_done("train", extent=num_epochs):
            with self._stage("train", inputs, extent=num_epochs) as progress:
                train_supernet(self.space, self.data, self.folder, options=self.train_options, progress=progress)
        supernet = load_supernet(self)
        self._say(describe_supernet(self.folder))
        return supernet

    def search(self) -> pd.DataFrame:
        """The study's rows."""
        self._check_feasible(None)
        profile = self.profile()
        self._check_feasible(profile)
        supernet = self.train()
        config, stage = self.config, f"search{self.suffix}"
        inputs = self._search_inputs(profile)
        self.stages.check(stage, inputs)
        if not self.stages.is_done(stage, extent=config.num_evaluations):
            with self._stage(stage, inputs, extent=config.num_evaluations) as progress:
                found = search(self, supernet, profile, inputs, progress)
            if found.attrs["stopped"]:
                self._say(f"search: stopped, {found.attrs['stopped']}")
                self.stages.shorten(stage, extent=len(found))
        frame = load_results(self.folder, study=self.study_path.name)
        self._say(f"search: {len(frame)} candidates measured, {(frame['state'] == 'failed').sum()} failed")
        return frame

    def join(self) -> None:
        """Evaluate candidates of a search that another process runs, until that search has all it wants."""
        for stage in ("profile", "train"):
            if not self.stages.is_done(stage):
                raise UserError(f"'{self.folder}' has no finished {stage} yet; start `nas search` and wait for it")
        profile = self.profile()
        inputs = self._search_inputs(profile)
        self.stages.check(f"search{self.suffix}", inputs)
        with rich_progress("search", console=self._console) as progress:
            found = search(self, self.train(), profile, inputs, progress)
        self._say(f"join: the study has {len(found)} candidates")

    def verify(self) -> pd.DataFrame:
        """Results with what was measured on the exported models; writes report and table too."""
        frame, profile, stage, inputs = self._before_verify()
        if not self._is_verified(stage, inputs):
            try:
                runtime = target_runtime(profile)
            except OtherTargetError as error:
                self._export(frame, profile, inputs | {"measured": "no"}, str(error))
                return self._results()
            with self._stage(stage, inputs) as progress:
                self.exported_path.unlink(missing_ok=True)
                models = front_models(self, frame, profile)
                measure_front(models, runtime, profile, self.beside("verified.json"), progress=progress)
        return self._results()

    def export_front(self) -> None:
        """Export the front, for another device to measure; UserError when it is verified already."""
        frame, profile, stage, inputs = self._before_verify()
        self._refuse_verified(stage, inputs)
        self._export(frame, profile, inputs | {"measured": "no"}, "another device is to measure the models")

    def record_front(
        self, results: Mapping[int, FileResult], target: Mapping[str, Any], data: ImageData
    ) -> pd.DataFrame:
        """Results with what `target` measured on the exported models and the images of `data`."""
        frame, profile, stage, inputs = self._before_verify()
        self._refuse_verified(stage, inputs)
        models = front_models(self, frame, profile)
        models.data = data
        with self._stage(stage, inputs | ELSEWHERE):
            record_front(models, results, target, self.beside("verified.json"))
            self.exported_path.unlink(missing_ok=True)
        return self._results()

    def _before_verify(self) -> tuple[pd.DataFrame, HardwareProfile, str, dict[str, str]]:
        """The study's rows, the profile, the name of the stage and its inputs."""
        frame = self.search()
        profile = HardwareProfile.load(self.folder / "profile.json")
        inputs = self._search_inputs(profile) | {"rows": hash_rows(frame), "models": str(self.config.max_models)}
        return frame, profile, f"verify{self.suffix}", inputs

    def _is_verified(self, stage: str, inputs: dict[str, str]) -> bool:
        return self._is_made(stage, inputs) or self._is_made(stage, inputs | ELSEWHERE)

    def _refuse_verified(self, stage: str, inputs: dict[str, str]) -> None:
        if self._is_verified(stage, inputs):
            raise UserError(f"'{self.models_path}' is verified already; --redo verify exports it anew")

    def _export(self, frame: pd.DataFrame, profile: HardwareProfile, inputs: dict[str, str], reason: str) -> None:
        """Export the front for the profile's target to measure; what was measured on other rows is set aside."""
        stage = f"verify{self.suffix}"
        if not self._is_made(stage, inputs):
            if self.beside("verified.json").exists():
                self.redo("verify")
            with self._stage(stage, inputs) as progress:
                models = front_models(self, frame, profile)
                export_unmeasured(models, profile, self.exported_path, reason=reason, progress=progress)
        self._say(f"verify: {reason}; models are exported, latencies predicted: run `nas verify` on the target")

    def _is_made(self, stage: str, inputs: dict[str, str]) -> bool:
        return self.stages.equal(stage, inputs) and self.stages.is_done(stage)

    def finetune(self, models: Sequence[str], options: FinetuneOptions) -> pd.DataFrame:
        """Results with what was measured after finetuning `models`, which are what `nas.results.select` takes.

        Models that were finetuned before with equal options are not trained again.
        """
        if is_launched():
            raise UserError("finetuning runs in one process; run it without `accelerate launch`")
        study, stage = self.study_path.name, f"finetune{self.suffix}"
        frame = load_results(self.folder, study=study)
        if load_verified(self.folder, study=study) is None:
            note = unverified_note(self.folder, study=study)
            state = f"is {note}" if note else "has no verified front yet"
            raise UserError(f"'{self.folder}' {state}; run `nas verify` on it first")
        chosen = sorted({index for text in models for index in select(frame, text)})
        profile = self.profile()
        self.stages.check("train", self._train_inputs())
        inputs = self._finetune_inputs(profile, options)
        self.stages.check(stage, inputs)
        rows = (load_finetuned(self.folder, study=study) or {"rows": []})["rows"]
        if not (self.stages.is_done(stage) and {row["index"] for row in rows} >= set(chosen)):
            with self._stage(stage, inputs) as progress:
                finetune(self, profile, chosen, options, progress)
        return self._results()

    def _results(self) -> pd.DataFrame:
        """Write the table and the report."""
        write_pareto_csv(self.folder, study=self.study_path.name)
        write_report(self.folder, study=self.study_path.name)
        frame = load_results(self.folder, study=self.study_path.name)
        if text := describe_verified(frame):
            self._say(text)
        return frame

    def fidelity(self, options: FidelityOptions) -> dict[str, Any]:
        """How well inherited accuracies rank sub-networks; `nas.fidelity.measure` says what is written and returned."""
        if is_launched():
            raise UserError("nas fidelity starts its own processes; run it without `accelerate launch`")
        members = choose_members(self.space, options)
        plan = plan_trainings(members, options)
        if options.alone is not None and not is_complete(self.folder, plan):  # refused before hours of training
            epochs = options.epochs_alone
            check_alone(options.alone, conditions(self.space, self.data, self.train_options, num_epochs=epochs))
        supernet = self.train()
        inputs = self._fidelity_inputs(options)
        self.stages.check("fidelity", inputs)
        if not (self.stages.is_done("fidelity") and is_complete(self.folder, plan)):
            with self._stage("fidelity", inputs) as progress:
                measure_fidelity(
                    supernet,
                    self.data,
                    self.folder,
                    members,
                    options=options,
                    recipe=self.train_options,
                    load=partial(load_quietly, self.config),
                    progress=progress,
                )
        if self.report_path.exists():
            write_report(self.folder, study=self.study_path.name)
        return load_fidelity(self.folder) or {}

    def sensitivity(self, architecture: str) -> pd.DataFrame:
        """What precisions do to single blocks (`nas.sensitivity`) of an architecture or of a member of the front."""
        chosen = front_member(self.folder, self.space, architecture) or find_architecture(self.space, architecture)
        profile = self.profile()
        evaluator = target_evaluator(self.train(), self.data, profile, calibration=self.config.calibration)
        names = ("search space", "data set", "version of hybridnas", "supernet", "profile", "calibration")
        inputs = {name: text for name, text in self._search_inputs(profile).items() if name in names}
        self.stages.check("sensitivity", inputs)
        if not (self.stages.is_done("sensitivity") and has_sensitivity(self.folder, architecture)):
            with self._stage("sensitivity", inputs) as progress:
                add_sensitivity(self.folder, architecture, chosen, evaluator, profile, progress=progress)
        if self.report_path.exists():
            write_report(self.folder, study=self.study_path.name)
        tables = load_sensitivity(self.folder)
        return tables[tables["architecture"] == architecture]

    def _check_feasible(self, profile: HardwareProfile | None) -> None:
        """Refuse constraints that nothing can meet before hours of training, not after; some need no profile."""
        if self.config.constraints and not self.study_path.exists():
            from nas.preview import check_constraints

            check_constraints(self.space, profile, self.config, fixed=self.fixed)

    def _train_inputs(self) -> dict[str, str]:
        return self._common_inputs() | _recipe_inputs("training", self.train_options, without=WITHOUT_INFLUENCE)

    def _search_inputs(self, profile: HardwareProfile) -> dict[str, str]:
        config = self.config
        return self._common_inputs() | {
            "supernet": hash_file(self.folder / "supernet.safetensors"),
            "profile": profile.fingerprint[:16],
            "objectives": ", ".join(config.objectives),
            "constraints": ", ".join(str(parse_constraint(text)) for text in config.constraints) or "none",
            "searcher": " ".join((config.searcher, *config.focus)),
            "seed": str(config.seed),
            "num_images": str(config.num_images or "default"),
            "calibration": config.calibration,
            "architecture": "any" if self.fixed is None else hash_text(json.dumps(self.fixed.to_json())),
        }

    def _finetune_inputs(self, profile: HardwareProfile, options: FinetuneOptions) -> dict[str, str]:
        """Not the chosen models, of which there may be more; the search's inputs decide what is on the front."""
        recipe, without = finetune_recipe(self.train_options, options), {*WITHOUT_INFLUENCE} - {"num_epochs"}
        return self._search_inputs(profile) | _recipe_inputs("finetuning", recipe, without=without)

    def _fidelity_inputs(self, options: FidelityOptions) -> dict[str, str]:
        """Not the number of architectures and seeds, which may grow."""
        return self._train_inputs() | {
            "supernet": hash_file(self.folder / "supernet.safetensors"),
            "epochs_alone": str(options.epochs_alone),
            "bands": ", ".join(f"{band:g}" for band in options.bands) or "none",
            "band_width_pct": f"{options.band_width_pct:g}" if options.bands else "none",
            "seed": str(options.seed),
            **({} if options.draws == "even" else {"draws": options.draws}),  # earlier runs know no other
        }

    def _common_inputs(self) -> dict[str, str]:
        return {
            "search space": f"{self.space.name} {self.space.fingerprint}",
            "data set": f"{Path(self.data.name).name} {self.data.fingerprint}",
            "version of hybridnas": nas.__version__,
        }

    @contextmanager
    def _stage(self, stage: str, inputs: dict[str, str], *, extent: int = 0) -> Iterator[Progress]:
        """Claim a stage, show its progress, and record that it is done. Of several processes the main one does."""
        if not is_main():
            yield no_progress
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        suffix = self.suffix if stage.partition("-")[0] in STAGES_OF_A_STUDY else ""
        with self.stages.alone(stage):
            self.config.save(self.folder / f"config{suffix}.yaml")
            self.stages.start(stage, inputs, extent=extent)
            start_s = time.monotonic()
            with rich_progress(stage, console=self._console) as progress:
                yield progress
            self.stages.finish(stage, seconds=time.monotonic() - start_s)

    def _say(self, text: str) -> None:
        if is_main():
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _recipe_inputs(stage: str, recipe: TrainOptions, *, without: Collection[str]) -> dict[str, str]:
    options = {name: value for name, value in recipe.to_json().items() if name not in without}
    for name, before in (("size_bias", 0.0), ("entanglement", "full")):
        if getattr(recipe, name) == before:
            del options[name]  # earlier runs know no other
    return {f"{stage}.{name}": str(value) for name, value in options.items()}
