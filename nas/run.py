"""A run: its folder, its options, and the stages from a data set to verified models, each reused where it is there."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

import nas
from hardware_profiles.device import describe_device
from hardware_profiles.profile import HardwareProfile, find_profile
from hardware_profiles.runtimes import Runtime, get_runtime
from nas.candidates import run_search
from nas.config import RunConfig
from nas.data import ImageData, load_data
from nas.errors import UserError
from nas.fidelity.measure import is_complete, load_fidelity, measure_fidelity
from nas.fidelity.options import FidelityOptions
from nas.fidelity.sampling import choose_members, plan_trainings
from nas.processes import is_launched, is_main, num_processes
from nas.profiling import profile_device
from nas.progress import Progress, no_progress, rich_progress
from nas.report import write_report
from nas.results import load_results, write_pareto_csv
from nas.search.objectives import parse_constraint
from nas.search.searchers import get_searcher
from nas.sensitivity_tables import add_sensitivity, front_member, has_sensitivity, load_sensitivity
from nas.stages import Stages, hash_file, hash_rows, hash_text
from nas.supernet import Supernet
from nas.training import TrainOptions, train_supernet
from nas.training.options import WITHOUT_INFLUENCE
from nas.verify import verify_front
from search_spaces import Architecture, SearchSpace, get_space

NAMED_ARCHITECTURES = ("smallest", "middle", "largest")


class Run:
    """The stages of one run. Each runs what it needs first, and is quick when it was done before.

    Raises:
        UserError, SpaceError, ProfileError: an option can't be, or a stage that is there was made from other inputs.
    """

    def __init__(self, folder: Path, config: RunConfig, *, console: Console | None = None) -> None:
        self.folder = folder
        self.stages = Stages(folder)
        self._console = console or Console(stderr=True)
        get_searcher(config.searcher)
        self.train_options = train_options(config)
        recipe = self.train_options.to_json()  # written out whole: defaults may change with the next release
        self.config = replace(config, epochs=recipe.pop("num_epochs"), training=recipe)
        self.data, self.space = load_inputs(config, console=self._console)
        self.fixed = None if config.architecture is None else find_architecture(self.space, config.architecture)
        self._suffix = "" if config.architecture is None else f"-{Path(config.architecture).stem}"

    @property
    def study_path(self) -> Path:
        """Of the joint search, or of the search of one architecture's precisions."""
        return self.folder / f"study{self._suffix}.db"

    @property
    def models_path(self) -> Path:
        """Folders of the verified models."""
        return self.folder / f"front{self._suffix}"

    @property
    def csv_path(self) -> Path:
        """The front as a table."""
        return self.folder / f"pareto{self._suffix}.csv"

    @property
    def report_path(self) -> Path:
        """The page to look at."""
        return self.folder / f"report{self._suffix}.html"

    def redo(self, stage: str) -> None:
        """Set the outputs of a stage, and of those made from it, aside."""
        name = stage + (self._suffix if stage in ("search", "verify") else "")
        aside = self.stages.redo(name)
        if aside is not None:
            self._say(f"{stage}: earlier results are in {aside}")

    @cached_property
    def runtime(self) -> Runtime:
        """What exported models run in on this machine."""
        return get_runtime(self.config.runtime, num_threads=self.config.threads)

    def profile(self) -> HardwareProfile:
        """The target's profile: that of the run, else measured here, or copied from the one that is named."""
        path = self.folder / "profile.json"
        inputs = self._profile_inputs()
        self.stages.check("profile", inputs)
        if not self.stages.is_done("profile"):
            with self._stage("profile", inputs) as progress:
                self._make_profile(progress).save(path, overwrite=True)
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
        supernet = Supernet(self.space)
        supernet.load(self.folder / "supernet.safetensors")
        self._say(describe_supernet(self.folder))
        return supernet

    def search(self) -> pd.DataFrame:
        """The study's rows."""
        self._check_feasible(None)
        profile = self.profile()
        self._check_feasible(profile)
        supernet = self.train()
        config, stage = self.config, f"search{self._suffix}"
        inputs = self._search_inputs(profile)
        self.stages.check(stage, inputs)
        if not self.stages.is_done(stage, extent=config.num_evaluations):
            with self._stage(stage, inputs, extent=config.num_evaluations) as progress:
                options = {} if config.num_images is None else {"num_images": config.num_images}
                run_search(
                    supernet,
                    self.data,
                    profile,
                    study=self.study_path,
                    objectives=config.objectives,
                    constraints=config.constraints,
                    num_evaluations=config.num_evaluations,
                    searcher=config.searcher,
                    seed=config.seed,
                    architecture=self.fixed,
                    settings=inputs,
                    progress=progress,
                    **options,
                )
        frame = load_results(self.folder, study=self.study_path.name)
        failed = int((frame["state"] == "failed").sum())
        self._say(f"search: {len(frame)} candidates measured" + (f", {failed} failed" if failed else ""))
        return frame

    def verify(self) -> pd.DataFrame:
        """Results with what was measured on the exported models; writes report and table too."""
        frame = self.search()
        profile = HardwareProfile.load(self.folder / "profile.json")
        stage = f"verify{self._suffix}"
        inputs = self._search_inputs(profile) | {"rows": hash_rows(frame), "models": str(self.config.max_models)}
        if not (self.stages.equal(stage, inputs) and self.stages.is_done(stage)):
            self._warn_of_other_device(profile)
            with self._stage(stage, inputs) as progress:
                self._verify(frame, profile, progress)
        write_pareto_csv(self.folder, study=self.study_path.name)
        write_report(self.folder, study=self.study_path.name)
        return load_results(self.folder, study=self.study_path.name)

    def fidelity(self, options: FidelityOptions) -> dict[str, Any]:
        """How well inherited accuracies rank sub-networks; `nas.fidelity.measure` says what is written and returned."""
        if is_launched():
            raise UserError("nas fidelity starts its own processes; run it without `accelerate launch`")
        members = choose_members(self.space, options)
        supernet = self.train()
        inputs = self._fidelity_inputs(options)
        self.stages.check("fidelity", inputs)
        if not (self.stages.is_done("fidelity") and is_complete(self.folder, plan_trainings(members, options))):
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
        profile, supernet = self.profile(), self.train()
        names = ("search space", "data set", "version of hybridnas", "supernet", "profile")
        inputs = {name: text for name, text in self._search_inputs(profile).items() if name in names}
        self.stages.check("sensitivity", inputs)
        if not (self.stages.is_done("sensitivity") and has_sensitivity(self.folder, architecture)):
            with self._stage("sensitivity", inputs) as progress:
                add_sensitivity(self.folder, architecture, chosen, supernet, self.data, profile, progress=progress)
        if self.report_path.exists():
            write_report(self.folder, study=self.study_path.name)
        tables = load_sensitivity(self.folder)
        return tables[tables["architecture"] == architecture]

    def _verify(self, frame: pd.DataFrame, profile: HardwareProfile, progress: Progress) -> None:
        supernet = Supernet(self.space)
        supernet.load(self.folder / "supernet.safetensors")
        verify_front(
            supernet,
            self.data,
            get_runtime(profile.runtime, num_threads=profile.num_threads),
            profile,
            frame,
            self.folder,
            objectives=self.config.objectives,
            constraints=self.config.constraints,
            architecture=self.fixed,
            max_models=self.config.max_models,
            name=f"verified{self._suffix}.json",
            models=self.models_path.name,
            progress=progress,
        )

    def _make_profile(self, progress: Progress) -> HardwareProfile:
        if self.config.hardware != "local":
            return fitting_profile(self.config, self.space)
        return profile_device(
            self.space,
            runtime=self.runtime,
            batch_size=self.config.batch,
            budget_s=self.config.budget,
            progress=progress,
        )

    def _check_feasible(self, profile: HardwareProfile | None) -> None:
        """Refuse constraints that nothing can meet before hours of training, not after; some need no profile."""
        if self.config.constraints and not self.study_path.exists():
            from nas.preview import check_constraints

            check_constraints(self.space, profile, self.config, fixed=self.fixed)

    def _train_inputs(self) -> dict[str, str]:
        options = self.train_options.to_json()
        recipe = {f"training.{name}": str(v) for name, v in options.items() if name not in WITHOUT_INFLUENCE}
        return self._common_inputs() | recipe

    def _profile_inputs(self) -> dict[str, str]:
        config = self.config
        inputs = {"search space": f"{self.space.name} {self.space.fingerprint}"}
        if config.hardware != "local":
            return inputs | {"hardware": f"{config.hardware} {fitting_profile(config, self.space).fingerprint[:16]}"}
        return inputs | {
            "hardware": f"local ({describe_device().processor})",
            "runtime": f"{self.runtime.name} {self.runtime.version}",
            "threads": str(config.threads),
            "batch": str(config.batch),
        }

    def _search_inputs(self, profile: HardwareProfile) -> dict[str, str]:
        config = self.config
        return self._common_inputs() | {
            "supernet": hash_file(self.folder / "supernet.safetensors"),
            "profile": profile.fingerprint[:16],
            "objectives": ", ".join(config.objectives),
            "constraints": ", ".join(str(parse_constraint(text)) for text in config.constraints) or "none",
            "searcher": config.searcher,
            "seed": str(config.seed),
            "num_images": str(config.num_images or "default"),
            "architecture": "any" if self.fixed is None else hash_text(json.dumps(self.fixed.to_json())),
        }

    def _fidelity_inputs(self, options: FidelityOptions) -> dict[str, str]:
        """Not the number of architectures and seeds, which may grow."""
        return self._train_inputs() | {
            "supernet": hash_file(self.folder / "supernet.safetensors"),
            "epochs_alone": str(options.epochs_alone),
            "bands": ", ".join(f"{band:g}" for band in options.bands) or "none",
            "band_width_pct": f"{options.band_width_pct:g}" if options.bands else "none",
            "seed": str(options.seed),
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
        self.config.save(
            self.folder / f"config{self._suffix if stage.partition('-')[0] in ('search', 'verify') else ''}.yaml"
        )
        self.stages.start(stage, inputs, extent=extent)
        start_s = time.monotonic()
        with rich_progress(stage, console=self._console) as progress:
            yield progress
        self.stages.finish(stage, seconds=time.monotonic() - start_s)

    def _warn_of_other_device(self, profile: HardwareProfile) -> None:
        here = describe_device()
        if (here.processor, here.flags) != (profile.device.processor, profile.device.flags):
            self._say(
                f"warning: the profile is of {profile.device.processor}, models are verified on this machine "
                f"({here.processor}): measured latencies are of this one"
            )

    def _say(self, text: str) -> None:
        if is_main():
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def load_inputs(config: RunConfig, *, console: Console | None = None) -> tuple[ImageData, SearchSpace]:
    """The data set, and the space with as many channels and classes as it has."""
    image_size = get_space(config.space).image_size
    with rich_progress("data", console=console, interval_s=10.0) as progress:
        data = load_data(config.data, image_size=image_size, num_validation=config.num_validation, progress=progress)
    return data, get_space(config.space, num_channels=data.num_channels, num_classes=data.num_classes)


def load_quietly(config: RunConfig) -> tuple[ImageData, SearchSpace]:
    """`load_inputs` for processes that show nothing."""
    return load_inputs(config, console=Console(quiet=True))


def train_options(config: RunConfig) -> TrainOptions:
    """The recipe of training that the options ask for; UserError when it is none."""
    values = {"num_shards": num_processes()} | dict(config.training)
    values |= {} if config.epochs is None else {"num_epochs": config.epochs}
    try:
        return TrainOptions.from_json(values)
    except TypeError as error:
        raise UserError(f"training options {values} can't be used: {error}") from None


def find_architecture(space: SearchSpace, text: str) -> Architecture:
    """`smallest`, `middle`, `largest`, or what an `architecture.json` describes."""
    if text in NAMED_ARCHITECTURES:
        return {"smallest": space.smallest, "middle": space.middle, "largest": space.largest}[text]()
    path = Path(text)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content = content.get("architecture", content)
        found = Architecture.from_json(content)
    except OSError:
        names = ", ".join(NAMED_ARCHITECTURES)
        raise UserError(f"unknown architecture '{text}'; give {names}, or an architecture.json") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{text} describes no architecture; give an architecture.json of an exported model") from None
    if found.space != space.name:
        raise UserError(
            f"{text} is an architecture of space '{found.space}', not of '{space.name}'; choose its --space"
        )
    return space.architecture(found.genotype)


def fitting_profile(config: RunConfig, space: SearchSpace) -> HardwareProfile:
    """The profile the options name; UserError when it is not of this space, or not of these threads and batch."""
    profile = find_profile(config.hardware, space=space.name)
    if profile.space_fingerprint != space.fingerprint:
        raise UserError(
            f"profile '{config.hardware}' is of another version of '{space.name}', or of images with other channels or "
            "classes; profile that device again with `nas profile` and the same --data"
        )
    for name, wanted, given in (
        ("threads", config.threads, profile.num_threads),
        ("batch", config.batch, profile.batch_size),
    ):
        if wanted != given:
            raise UserError(
                f"profile '{config.hardware}' was measured with --{name} {given}, not {wanted}; use --{name} {given}"
            )
    return profile


def describe_profile(profile: HardwareProfile) -> str:
    """One line."""
    text = (
        f"profile: {profile.device.processor}, {profile.runtime} {profile.runtime_version}, "
        f"threads {profile.num_threads}, batch {profile.batch_size}, {len(profile.rows)} rows, {profile.date[:10]}"
    )
    held_out = profile.held_out or {}
    return text + (" (held out: " + ", ".join(f"{k} {v:.3g}" for k, v in held_out.items()) + ")" if held_out else "")


def describe_supernet(folder: Path) -> str:
    """One line, from `supernet.json`."""
    path = folder / "supernet.json"
    try:
        accuracy = json.loads(path.read_text(encoding="utf-8"))["accuracy"]
        parts = [f"{name} {values['test_pct']:.1f}%" for name, values in accuracy.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is missing or damaged; --redo train makes it again") from None
    return "supernet: test accuracy of " + ", ".join(parts)
