"""How much faster than uniform precisions a mixed policy is by prediction, whatever its accuracy: what a target offers.

    python -m tests.benchmarks.policy_potential --output FILE [--profiles NAME_OR_FILE ...] [--num 12]

Of the architectures that `policies` measures. Writes a row a profile: geometric means over the architectures of the
latency of each precision, and of the best of them for an architecture, over that of the fastest precision of each
block. By default all shipped profiles are used; beside the file of a run's profile its config.yaml names the space.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from cyclopts import Parameter
from cyclopts import run as run_command
from rich.console import Console
from scipy.stats import gmean

from hardware_profiles.errors import ProfileError
from hardware_profiles.profile import HardwareProfile, find_profile, list_profiles
from nas.candidates import CheapObjectives
from nas.config import load_options
from nas.provenance import provenance
from nas.results import replace_text
from search_spaces import SearchSpace, get_space
from search_spaces.precision import CandidateSpace
from tests.benchmarks.policies import UNIFORM, architectures

Many = Parameter(consume_multiple=True)


def potential(*, output: Path, profiles: Annotated[tuple[str, ...], Many] = (), num: int = 12, seed: int = 0) -> None:
    """Write the table of all profiles and print it."""
    rows = []
    try:
        found = [(name, find_profile(name)) for name in profiles] or [(p.name, p) for p in list_profiles()]
        for name, profile in found:
            of_it = speedups(profile, space_of(name, profile), num, seed)
            rows.append({"profile": profile.name, "space": profile.space} | of_it)
    except ProfileError as error:
        sys.exit(f"policy_potential: {error}")
    frame = pd.DataFrame(rows)
    output.parent.mkdir(parents=True, exist_ok=True)
    replace_text(output, frame.to_csv(index=False, float_format="%.4g"))
    about = {"seed": seed, "num_architectures": num, **provenance(("numpy",))}
    replace_text(output.with_suffix(".json"), json.dumps(about, indent=1) + "\n")
    Console(width=160).print(frame.round(3).to_string(index=False))


def space_of(name: str, profile: HardwareProfile) -> SearchSpace:
    """The space that a profile is of."""
    config = Path(name).parent / "config.yaml"
    of_a_run = Path(name).is_file() and config.is_file()
    return get_space(load_options(config)["space"] if of_a_run else profile.space)


def speedups(profile: HardwareProfile, space: SearchSpace, num: int, seed: int) -> dict[str, float]:
    """By precision, and `best_uniform`: its latency over that of each block's fastest precision."""
    precisions = [precision for precision in UNIFORM if precision in profile.precisions]
    ratios = []
    for architecture in architectures(space, num, seed):
        candidates = CandidateSpace(space, precisions=profile.precisions, fixed=architecture)
        cheap = CheapObjectives(candidates, profile)
        uniform = [candidates.uniform(architecture, precision) for precision in precisions]
        chosen = [candidates.genotype(candidate) for candidate in (*uniform, cheap.fastest(architecture))]
        *latencies_ms, fastest_ms = cheap(chosen)["latency_ms"]
        ratios.append([*latencies_ms, min(latencies_ms)] / fastest_ms)
    means = gmean(np.array(ratios), axis=0)
    return dict(zip((*precisions, "best_uniform"), map(float, means), strict=True))


if __name__ == "__main__":
    run_command(potential)
