"""Design an architecture without any training or search: the highest entropy that budgets allow, and what it costs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from hardware_profiles.profile import HardwareProfile, find_profile
from nas.candidates import CheapObjectives, check_profile, device_free_costs
from nas.entropy_program import Budgets, max_entropy
from nas.errors import UserError
from nas.flags import DesignFlags
from nas.progress import Progress, no_progress, rich_progress
from nas.tables import design_table, genes_table
from predictors.latency import LatencyPredictor
from search_spaces import Architecture, SearchSpace, get_space
from search_spaces.precision import CandidateSpace


def print_design(flags: DesignFlags, *, console: Console) -> None:
    """Print what the flags ask for, and write it where they say.

    Raises:
        UserError, SpaceError, ProfileError: an option can't be, or nothing keeps the budgets.
    """
    budgets = Budgets(
        macs=flags.max_macs,
        params=flags.max_params,
        latency_ms=flags.max_latency_ms,
        effectiveness=flags.max_effectiveness,
    )
    space = get_space(flags.space, num_channels=flags.num_channels, num_classes=flags.num_classes)
    profile = None if flags.hardware is None else find_profile(flags.hardware, space=space.name)
    with rich_progress("design") as progress:
        found = design_network(space, budgets, profile=profile, progress=progress)
    console.print(genes_table(space, found.architecture))
    console.print(design_table(found.costs))
    if flags.output is not None:
        found.save(flags.output)
        print(f"architecture: {flags.output}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """An architecture and what is known of it without training."""

    architecture: Architecture
    costs: Mapping[str, float]
    """entropy, effectiveness, macs, params; with a profile predicted_latency_ms in fp32, and
    predicted_fastest_latency_ms where each block has its fastest precision."""

    def to_json(self) -> dict[str, Any]:
        return {"architecture": self.architecture.to_json(), **self.costs}

    def save(self, path: Path) -> None:
        """Write an architecture.json that `--architecture` takes; UserError when the file is there."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(json.dumps(self.to_json(), indent=1) + "\n")
        except FileExistsError:
            raise UserError(f"{path} exists; nothing was overwritten, give another file") from None


def design_network(
    space: SearchSpace,
    budgets: Budgets,
    *,
    profile: HardwareProfile | None = None,
    progress: Progress = no_progress,
) -> Design:
    """The architecture of most entropy within the budgets (`nas.entropy_program`).

    Raises:
        UserError: nothing keeps the budgets, latency is limited without a profile, or the profile is of another space.
    """
    if profile is None:
        found = max_entropy(space, budgets, progress=progress)
        return Design(architecture=found, costs=device_free_costs(space.blocks(found)))
    check_profile(profile, space)
    found = max_entropy(space, budgets, predictor=LatencyPredictor.from_profile(profile), progress=progress)
    candidates = CandidateSpace(space, precisions=profile.precisions)
    cheap = CheapObjectives(candidates, profile)
    genotypes = [candidates.genotype(c) for c in (candidates.uniform(found), cheap.fastest(found))]
    fp32_ms, fastest_ms = (float(value) for value in cheap(genotypes)["latency_ms"])
    latencies = {"predicted_latency_ms": fp32_ms, "predicted_fastest_latency_ms": fastest_ms}
    return Design(architecture=found, costs=device_free_costs(space.blocks(found)) | latencies)
