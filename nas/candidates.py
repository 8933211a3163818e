"""What a search proposes and how it is judged: accuracy of the sub-network under its policy, cost from the profile."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hardware_profiles.profile import HardwareProfile
from nas.config import DEFAULT_OBJECTIVES
from nas.data import ImageData
from nas.error_estimate import ErrorEstimate
from nas.errors import UserError
from nas.evaluator import Evaluator, ScoresOf, torch_threads
from nas.progress import Progress, no_progress
from nas.search import Objective, optimize, parse_constraint, parse_focus
from nas.search.executors import ExecutorOf, LocalExecutor
from nas.search.study import STUDY_NAME, Study
from nas.sensitivity import allocate_policy, measure_sensitivity, policy_budgets
from nas.stages import hash_bytes
from nas.supernet import Supernet
from predictors.entropy import effectiveness, entropy
from predictors.latency import LatencyPredictor
from search_spaces import Architecture, BlockSpec, Genotype, SearchSpace
from search_spaces.blocks import block_class
from search_spaces.cost import network_cost
from search_spaces.errors import unknown_name
from search_spaces.precision import (
    Candidate,
    CandidateSpace,
    canonical_policy,
)

OBJECTIVES = {
    objective.name: objective
    for objective in (
        Objective("error_pct", unit="%"),
        Objective("estimated_error_pct", unit="%"),
        Objective("latency_ms", unit="ms", expensive=False),
        Objective("size_bytes", unit="bytes", expensive=False),
        Objective("macs", expensive=False),
        Objective("params", expensive=False),
        Objective("entropy", maximize=True, expensive=False),
        Objective("effectiveness", expensive=False),
    )
}
"""What may be optimised; lower is better but for entropy. The first two are measured (`nas.error_estimate` says what
the second is), the others are computed for any candidate; `predictors.entropy` says what the last two are."""

DEVICE_FREE = ("macs", "params", "entropy", "effectiveness")
"""Objectives that need no profile."""

NUM_SENSITIVITY_IMAGES = 256
"""Validation images that decide the allocated policies among the first candidates."""


def device_free_costs(specs: Sequence[BlockSpec]) -> dict[str, float]:
    """The values of `DEVICE_FREE` of an architecture's blocks."""
    cost = network_cost(specs)
    values = (cost.macs, cost.num_params, entropy(specs), effectiveness(specs))
    return dict(zip(DEVICE_FREE, map(float, values), strict=True))


class CheapObjectives:
    """Latency, size and what no device decides of many genotypes at once, from a hardware profile."""

    def __init__(self, candidates: CandidateSpace, profile: HardwareProfile):
        self.candidates, self.profile = candidates, profile
        self.predictor = LatencyPredictor.from_profile(profile)
        self._row = lru_cache(maxsize=200_000)(self._costs)
        space = candidates.space
        self._device_free = lru_cache(maxsize=200_000)(
            lambda architecture: device_free_costs(space.blocks(architecture))
        )

    def __call__(self, genotypes: Sequence[Genotype]) -> dict[str, np.ndarray]:
        """Columns by name; latency is predicted for the profile's target, size is that of the exported file."""
        candidates = [self.candidates.candidate(genotype) for genotype in genotypes]
        rows = [self._row(candidate) for candidate in candidates]
        latency_ms = self.predictor.predict([row[0] for row in rows]) if rows else np.empty(0)
        return {
            "latency_ms": latency_ms,
            "size_bytes": np.array([row[1] for row in rows], float),
            **{name: np.array([row[2][name] for row in rows], float) for name in DEVICE_FREE},
        }

    def fastest(self, architecture: Architecture) -> Candidate:
        """An architecture with each block in the precision that is fastest in the profile."""
        specs, policy = self.candidates.space.blocks(architecture), {}
        for spec in specs:
            possible = [p for p in block_class(spec.kind).precisions if p in self.candidates.precisions]
            policy[spec.name] = min(possible, key=lambda p: self.profile.latency_ms(spec.cost_key, p))
        return Candidate(architecture=architecture, policy=canonical_policy(specs, policy))

    def _costs(self, candidate: Candidate) -> tuple[tuple[tuple[str, str], ...], int, dict[str, float]]:
        blocks = profile_blocks(self.candidates.space, candidate)
        size_bytes = sum(self.profile.rows[self.profile.row(*block)].size_bytes for block in blocks)
        return blocks, size_bytes, self._device_free(candidate.architecture)


def profile_blocks(space: SearchSpace, candidate: Candidate) -> tuple[tuple[str, str], ...]:
    """A candidate as a profile sees it: (block key, precision) of each block, in order."""
    policy = dict(candidate.policy.precisions)
    return tuple((spec.cost_key, policy.get(spec.name, "fp32")) for spec in space.blocks(candidate.architecture))


def run_search(
    supernet: Supernet,
    data: ImageData,
    profile: HardwareProfile,
    *,
    study: Path | str | None = None,
    study_name: str = STUDY_NAME,
    objectives: Sequence[str] = DEFAULT_OBJECTIVES,
    constraints: Sequence[str] = (),
    focus: Sequence[str] = (),
    num_evaluations: int = 60,
    searcher: str = "predictor-guided",
    seed: int = 0,
    architecture: Architecture | None = None,
    num_images: int | None = None,
    calibration: str = "min-max",
    estimate: ErrorEstimate | None = None,
    num_threads: int = 2,
    time_limit_s: float | None = None,
    patience: int | None = None,
    executor: ExecutorOf = LocalExecutor,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Search architecture and precision together, or the policy of one `architecture` alone.

    Args:
        study: file or storage URL to which each measured candidate is appended; an existing one is continued.
        num_images: validation images that decide error and cross-entropy; all by default.
        calibration: how ranges of static int8 are found, one of `nas.calibration.CALIBRATIONS`.
        estimate: of the error, fitted to the same candidates before; by default it is fitted here when it is asked for.
        num_threads: torch threads of every evaluation; part of what makes a search repeatable.
        study_name, time_limit_s, patience, executor: as in `nas.search.optimize`.

    Returns:
        The study, one row a measured candidate: genes, objectives and the other costs.

    Raises:
        UserError: an unknown objective, a constraint that nothing meets, a profile of another space, another
            search's study.
    """
    space = supernet.space
    check_profile(profile, space)
    chosen = [_objective(name) for name in objectives]
    limits = [parse_constraint(text, OBJECTIVES) for text in constraints]
    evaluate = ScoresOf(
        supernet,
        data,
        profile,
        architecture=architecture,
        num_images=num_images,
        calibration=calibration,
        num_threads=num_threads,
        estimate=estimate,
    )
    candidates = evaluate.candidates
    begun = _begun(study, study_name, candidates)
    if estimate is None and "estimated_error_pct" in objectives:
        if begun.get("estimate") is None:
            evaluate.fit_estimate(progress or no_progress)
        else:
            evaluate.estimate = ErrorEstimate(**begun["estimate"])
    fitted = None if evaluate.estimate is None else asdict(evaluate.estimate)
    cheap = CheapObjectives(candidates, profile)
    with torch_threads(num_threads):
        return optimize(
            evaluate,
            candidates.choices,
            objectives=chosen,
            num_evaluations=num_evaluations,
            searcher=searcher,
            seed=seed,
            canonical=lru_cached(candidates),
            initial=begun["initial"] if begun else first_genotypes(evaluate.evaluator, cheap),
            constraints=limits,
            focus=[parse_focus(text, objectives) for text in focus],
            cheap=cheap,
            study=study,
            study_name=study_name,
            time_limit_s=time_limit_s,
            patience=patience,
            executor=executor,
            settings={
                "num_threads": num_threads,
                "num_images": len(evaluate.split),
                "calibration": calibration,
                **({} if begun and "estimate" not in begun else {"estimate": fitted}),  # earlier versions kept none
                "supernet": hash_bytes(supernet.flat.detach().cpu().numpy().data),
                "data set": data.fingerprint,
                "profile": profile.fingerprint,
                **(settings or {}),
            },
            progress=progress,
        )


def _begun(study: Path | str | None, study_name: str, candidates: CandidateSpace) -> dict[str, Any]:
    """Settings of the study that a search of `candidates` continues, its first genotypes by name; empty for a new one.

    Estimate and first genotypes are thus measured once, and are the same for all processes and machines of a study.
    """
    settings = Study.settings_at(study, name=study_name)
    choices = {choice.name: list(choice.values) for choice in candidates.choices}
    if settings.get("choices") != choices:
        return {}
    return settings | {"initial": [dict(zip(choices, values, strict=True)) for values in settings["initial"]]}


def lru_cached(candidates: CandidateSpace) -> Callable[[Genotype], Genotype]:
    """The space's canonical form, remembered: evolution asks for the same genotypes again and again."""
    names = [choice.name for choice in candidates.choices]

    @lru_cache(maxsize=200_000)
    def remembered(values: tuple[Any, ...]) -> Genotype:
        return candidates.canonical(dict(zip(names, values, strict=True)))

    return lambda genotype: dict(remembered(tuple(genotype[name] for name in names)))


def first_genotypes(evaluator: Evaluator, cheap: CheapObjectives) -> list[Genotype]:
    """`first_candidates` as genotypes; their policies are allocated by the evaluator's networks and data."""
    sensitivity_of = partial(
        measure_sensitivity,
        evaluator.network,
        space=cheap.candidates.space,
        profile=cheap.profile,
        data=evaluator.data,
        num_images=NUM_SENSITIVITY_IMAGES,
    )
    return [cheap.candidates.genotype(candidate) for candidate in first_candidates(cheap, sensitivity_of)]


def first_candidates(cheap: CheapObjectives, sensitivity_of: Callable[[Architecture], pd.DataFrame]) -> list[Candidate]:
    """What a search measures first, the most telling ones first: at most ten, which is a batch.

    The smallest, middle and largest network in fp32, in its blocks' fastest precisions and under the policy allocated
    halfway between the two; of a fixed architecture uniform precisions and policies allocated to several latencies.
    `sensitivity_of` gives the table of `nas.sensitivity.measure_sensitivity`.
    """
    candidates, space = cheap.candidates, cheap.candidates.space

    def allocated(architecture: Architecture, *fractions: float) -> list[Candidate]:
        specs, table = space.blocks(architecture), sensitivity_of(architecture)
        budgets = policy_budgets(table, fractions=fractions)
        policies = (allocate_policy(specs, table, budget=budget) for budget in budgets)
        return [Candidate(architecture=architecture, policy=policy) for policy in policies]

    if candidates.fixed is not None:
        found = [candidates.uniform(candidates.fixed, precision) for precision in candidates.precisions]
        found += [cheap.fastest(candidates.fixed), *allocated(candidates.fixed, 0.5, 0.25, 0.1)]
        return list(dict.fromkeys(found))
    named = (space.smallest(), space.middle(), space.largest())
    found = [candidates.uniform(architecture) for architecture in named]
    found += [cheap.fastest(architecture) for architecture in named]
    found += [candidate for architecture in named for candidate in allocated(architecture, 0.5)]
    return list(dict.fromkeys(found))


def check_profile(profile: HardwareProfile, space: SearchSpace) -> None:
    """UserError when a profile was measured for other blocks than the space's."""
    if profile.space_fingerprint != space.fingerprint:
        raise UserError(
            f"profile '{profile.name}' measured '{profile.space}' {profile.space_fingerprint}, not '{space.name}' "
            f"{space.fingerprint}; profile this space and data set with `nas profile`"
        )


def _objective(name: str) -> Objective:
    if name not in OBJECTIVES:
        raise UserError(unknown_name("objective", name, OBJECTIVES))
    return OBJECTIVES[name]
