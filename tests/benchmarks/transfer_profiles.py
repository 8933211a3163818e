"""Profiles of one space transferred to each other: each is left out in turn, and predicted from the others.

    python -m tests.benchmarks.transfer_profiles --output FILE [--profiles NAME_OR_FILE ...] [--samples 10 20]

Of the profile left out, only `--samples` of its networks for fitting are known, chosen as `nas profile --from` chooses
them. Writes a row a profile and number of samples: how far off its own held-out networks are, predicted from the
transferred rows, and beside it predicted from its own measured rows. By default all shipped profiles are used.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from cyclopts import Parameter
from cyclopts import run as run_command
from rich.console import Console

from hardware_profiles.errors import ProfileError
from hardware_profiles.profile import HardwareProfile, find_profile, list_profiles
from nas.provenance import provenance
from nas.results import replace_text
from predictors.latency import LatencyPredictor
from predictors.metrics import MIN_POINTS, prediction_metrics
from predictors.profile_transfer import select_networks, transferred_rows

Many = Parameter(consume_multiple=True)


def transfer_profiles(
    *,
    output: Path,
    profiles: Annotated[tuple[str, ...], Many] = (),
    samples: Annotated[tuple[int, ...], Many] = (10, 20),
) -> None:
    """Leave each profile out in turn."""
    rows = []
    try:
        found = [find_profile(name) for name in profiles] or list_profiles()
        for same in by_space(found):
            for left_out in same:
                sources = [profile for profile in same if profile is not left_out]
                rows += [compare(left_out, sources, num) for num in samples]
    except ProfileError as error:
        sys.exit(f"transfer_profiles: {error}")
    if not rows:
        sys.exit(f"transfer_profiles: {len(found)} profiles leave none to transfer from; give two or more of one space")
    frame = pd.DataFrame(rows)
    output.parent.mkdir(parents=True, exist_ok=True)
    replace_text(output, frame.to_csv(index=False, float_format="%.6g"))
    about = {**provenance(("numpy", "scipy", "scikit-learn")), "rows": rows}
    replace_text(output.with_suffix(".json"), json.dumps(about, indent=1, allow_nan=False) + "\n")
    Console(width=160).print(frame.round(3).to_string(index=False))


def by_space(profiles: Sequence[HardwareProfile]) -> list[list[HardwareProfile]]:
    """Groups of two or more profiles that can be transferred to each other."""
    groups = defaultdict(list)
    for profile in profiles:
        groups[profile.space, profile.space_fingerprint, profile.batch_size].append(profile)
    return [group for group in groups.values() if len(group) > 1]


def compare(left_out: HardwareProfile, sources: Sequence[HardwareProfile], num_samples: int) -> dict[str, Any]:
    """Errors on the held-out networks of `left_out`, from transferred and from measured rows."""
    common = set(left_out.row_index).intersection(*(source.row_index for source in sources))
    networks = [network for network in left_out.networks if set(network.blocks) <= common]
    fit = [network for network in networks if network.role == "fit"]
    held_out = [network for network in networks if network.role == "held-out"]
    if len(held_out) < MIN_POINTS:
        raise ProfileError(
            f"profile {left_out.name!r} has {len(held_out)} held-out networks; profile it again with a larger --budget"
        )
    chosen = tuple(fit[row] for row in select_networks(sources, [network.blocks for network in fit], num_samples))
    call_ms, rows = transferred_rows(sources, chosen)
    rows = tuple(row for row in rows if row.precision in left_out.precisions)
    transferred = replace(left_out, call_overhead_ms=call_ms, rows=rows, networks=chosen)
    found = {
        rows_are: prediction_metrics(
            [network.latency_ms for network in held_out],
            LatencyPredictor.from_profile(profile).predict([network.blocks for network in held_out]),
        )
        for rows_are, profile in (("transferred", transferred), ("measured", left_out))
    }
    return {
        "profile": left_out.name,
        "space": left_out.space,
        "runtime": left_out.runtime,
        "sources": " ".join(source.name for source in sources),
        "samples": num_samples,
    } | {
        f"{rows_are}_{name}": metrics[name]
        for rows_are, metrics in found.items()
        for name in ("mape_pct", "spearman", "kendall")
    }


if __name__ == "__main__":
    run_command(transfer_profiles)
