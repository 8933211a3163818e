"""What a run will be like, before anything is trained: costs of three networks, constraints that can be met, time."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from hardware_profiles.profile import HardwareProfile
from nas.candidates import DEVICE_FREE, OBJECTIVES, CheapObjectives, check_profile, device_free_costs, lru_cached
from nas.config import EVALUATED, RunConfig
from nas.data import ImageData, Split
from nas.error_estimate import NUM_IMAGES, NUM_NETWORKS
from nas.errors import UserError
from nas.evaluator import Evaluator
from nas.profiling import num_rows
from nas.progress import format_duration
from nas.run_inputs import find_architecture, fitting_profile, load_inputs, train_options
from nas.search.feasibility import check_feasible
from nas.search.objectives import parse_constraint
from nas.search.problem import CheapColumns, SearchProblem
from nas.search.searchers import get_searcher
from nas.supernet import Supernet
from nas.training.batches import load_batches, steps_per_epoch
from nas.training.loop import train_step
from nas.training.options import TrainOptions
from nas.training.state import new_state
from nas.training.strategies import get_strategy
from search_spaces import Architecture, Genotype, SearchSpace
from search_spaces.cost import network_cost
from search_spaces.precision import CandidateSpace

NUM_TRIAL_IMAGES = 500
"""Validation images on which judging a candidate is timed."""

EXPORT_S_PER_ROW = 0.05
"""Making a block's model and loading it, for the estimate only."""

VERIFY_S_PER_MODEL = 3.0
"""Exporting a model and timing it twice, for the estimate only."""


def print_preview(folder: Path, config: RunConfig, *, console: Console) -> None:
    """Print the preview of a run in `folder`; nothing is written there.

    Raises:
        UserError, SpaceError, ProfileError: an option can't be.
    """
    get_searcher(config.searcher)
    data, space = load_inputs(config)
    fixed = None if config.architecture is None else find_architecture(space, config.architecture)
    profile = _known_profile(folder, config, space)
    console.print(
        f"search space {space.name}: {space.num_architectures():.3g} distinct architectures; data {data.name}: "
        f"{len(data.train)} training, {len(data.validation)} validation, {len(data.test)} test images, "
        f"{data.num_classes} classes",
        highlight=False,
        soft_wrap=True,
    )
    console.print(_cost_table(space, profile))
    if profile is None:
        seconds = format_duration(_profile_seconds(space, config))
        console.print(
            f"Latency needs a profile: `nas profile` measures this machine in about {seconds}.", highlight=False
        )
    for text in config.constraints:
        verdict = constraint_verdict(text, space, profile, config, fixed=fixed)
        console.print(f"constraint {text}: {verdict}", markup=False, highlight=False, soft_wrap=True)
    console.print(_time_table(estimate_seconds(space, data, profile, config)))


def check_constraints(
    space: SearchSpace, profile: HardwareProfile | None, config: RunConfig, *, fixed: Architecture | None
) -> None:
    """Raise `UserError`, with the best value there is, when no candidate keeps the constraints on computed values."""
    candidates = CandidateSpace(space, fixed=fixed, **({} if profile is None else {"precisions": profile.precisions}))
    cheap: CheapColumns = _DeviceFree(candidates) if profile is None else CheapObjectives(candidates, profile)
    known = DEVICE_FREE if profile is None else ("latency_ms", "size_bytes", *DEVICE_FREE)
    limits = [limit for text in config.constraints if (limit := parse_constraint(text)).objective in known]
    problem = SearchProblem(
        choices=candidates.choices,
        objectives=(OBJECTIVES["macs"], OBJECTIVES["params"]),
        constraints=tuple(limits),
        canonical=lru_cached(candidates),
        cheap=cheap,
    )
    check_feasible(problem, rng=np.random.default_rng(config.seed))


def constraint_verdict(
    text: str, space: SearchSpace, profile: HardwareProfile | None, config: RunConfig, *, fixed: Architecture | None
) -> str:
    """Whether some candidate keeps one constraint, as far as that is known."""
    name = parse_constraint(text).objective
    if name in EVALUATED:
        return "known only when accuracy has been measured"
    if profile is None and name in ("latency_ms", "size_bytes"):
        return "known when there is a profile"
    alone = RunConfig(objectives=config.objectives, constraints=(text,), seed=config.seed)
    try:
        check_constraints(space, profile, alone, fixed=fixed)
    except UserError as error:
        return str(error)
    return "can be met" if name in DEVICE_FREE else "can be met, by prediction"


def estimate_seconds(
    space: SearchSpace, data: ImageData, profile: HardwareProfile | None, config: RunConfig
) -> dict[str, float]:
    """Rough seconds of each stage, from a training step and an evaluation timed here."""
    options = train_options(config)
    supernet = Supernet(space, entanglement=options.entanglement)
    epoch_s = step_seconds(supernet, data, options) * steps_per_epoch(data, options)
    evaluator = Evaluator(supernet, data, batch_size=config.batch)
    candidate = CandidateSpace(space).uniform(space.middle())
    start_s = time.perf_counter()
    evaluator.deployed(candidate.architecture)
    deployed_s = time.perf_counter()
    num_trial = min(NUM_TRIAL_IMAGES, len(data.validation))
    split = Split(images_BCHW=data.validation.images_BCHW[:num_trial], labels_B=data.validation.labels_B[:num_trial])
    evaluator.error_pct(candidate, split)
    image_s = (time.perf_counter() - deployed_s) / num_trial
    num_images = min(config.num_images or len(data.validation), len(data.validation))
    num_fitted = NUM_NETWORKS if "estimated_error_pct" in config.objectives else 0
    num_evaluations = config.num_evaluations + num_fitted
    num_images_fitted = min(max(num_images, NUM_IMAGES), len(data.validation))
    num_judged = config.num_evaluations * num_images + num_fitted * num_images_fitted
    verify_s = VERIFY_S_PER_MODEL + image_s * (2 * len(data.validation) + len(data.test))
    return {
        "profile": 0.0 if profile is not None else _profile_seconds(space, config),
        "train": epoch_s * options.num_epochs,
        "search": num_evaluations * (deployed_s - start_s) + num_judged * image_s,
        "verify": config.max_models * verify_s,
        **({"finetune": config.max_models * config.finetune_epochs * epoch_s} if config.finetune_epochs else {}),
    }


class _DeviceFree:
    """What is known of candidates without a profile."""

    def __init__(self, candidates: CandidateSpace) -> None:
        self._candidates = candidates

    def __call__(self, genotypes: Sequence[Genotype]) -> dict[str, np.ndarray]:
        architectures = [self._candidates.candidate(genotype).architecture for genotype in genotypes]
        costs = [device_free_costs(self._candidates.space.blocks(architecture)) for architecture in architectures]
        return {name: np.array([cost[name] for cost in costs], float) for name in DEVICE_FREE}


def _known_profile(folder: Path, config: RunConfig, space: SearchSpace) -> HardwareProfile | None:
    """The profile that the options name, else the run's."""
    if config.hardware != "local":
        return fitting_profile(config, space)
    path = folder / "profile.json"
    if not path.exists():
        return None
    profile = HardwareProfile.load(path)
    check_profile(profile, space)
    return profile


def _profile_seconds(space: SearchSpace, config: RunConfig) -> float:
    return config.budget + EXPORT_S_PER_ROW * num_rows(space)


def step_seconds(supernet: Supernet, data: ImageData, options: TrainOptions) -> float:
    """Seconds of a training step, timed here: the mean of an early and a late one. Moves the supernet's weights."""
    options = replace(options, num_workers=0)
    state = new_state(supernet, get_strategy(options, supernet.space), options)
    num_steps = options.num_epochs * steps_per_epoch(data, options)
    shards = range(options.num_shards)
    seconds = []
    for done in (0.75, 0.25, 0.75):  # the first is slower, it makes the modules
        start_s = time.perf_counter()
        state.step = int(done * num_steps)
        steps = range(state.step, state.step + 1)
        raws = next(load_batches(data, options, num_views=state.strategy.num_views, shards=shards, steps=steps))
        train_step(state, data, options, dict(zip(shards, raws, strict=True)))
        seconds.append(time.perf_counter() - start_s)
    return float(np.mean(seconds[1:]))


def _cost_table(space: SearchSpace, profile: HardwareProfile | None) -> Table:
    size = "fp32 weights kB" if profile is None else "fp32 file kB"
    table = Table("network", "MMACs", "parameters", size, "predicted fp32 ms", "predicted fastest ms")
    for column in table.columns[1:]:
        column.justify = "right"
    for name in ("smallest", "middle", "largest"):
        architecture = find_architecture(space, name)
        cost = network_cost(space.blocks(architecture))
        cells = [name, f"{cost.macs / 1e6:.2f}", f"{cost.num_params:,}"]
        if profile is None:
            cells += [f"{cost.num_params * 4 / 1e3:.0f}", "?", "?"]
        else:
            candidates = CandidateSpace(space, precisions=profile.precisions)
            cheap = CheapObjectives(candidates, profile)
            chosen = [candidates.uniform(architecture), cheap.fastest(architecture)]
            values = cheap([candidates.genotype(candidate) for candidate in chosen])
            cells += [f"{values['size_bytes'][0] / 1e3:.0f}", *(f"{ms:.3f}" for ms in values["latency_ms"])]
        table.add_row(*cells)
    return table


def _time_table(seconds: dict[str, float]) -> Table:
    table = Table("stage", "about", title="Estimated time", title_justify="left")
    for stage, stage_s in [*seconds.items(), ("all", sum(seconds.values()))]:
        table.add_row(stage, "there is one" if stage == "profile" and not stage_s else format_duration(stage_s))
    return table
