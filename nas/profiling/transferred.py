"""A profile without measuring blocks: some whole networks measured here, the rows from profiles of other devices."""

import dataclasses
import time
from collections.abc import Callable, Sequence

from hardware_profiles.profile import HardwareProfile
from hardware_profiles.runtimes import Runtime
from nas.errors import UserError
from nas.profiling.assemble import Measurements, network_rows, profile_of
from nas.profiling.local import measure_plan
from nas.profiling.plan import ProfilePlan, plan_profile
from nas.progress import Progress, no_progress
from nas.saturation import find_weight_bits
from predictors.profile_transfer import select_networks, transferred_rows
from predictors.transfer import MIN_NETWORKS
from search_spaces import SearchSpace

NUM_SAMPLES = 20
"""Networks to measure unless said otherwise."""

NUM_CANDIDATES = 96
"""Networks of which those to measure are selected."""

_ALWAYS = 2
"""The smallest and the middle network in fp32 are always measured: the second is the reference that takes out drift."""


def transfer_profile(
    space: SearchSpace,
    sources: Sequence[HardwareProfile],
    *,
    runtime: Runtime,
    num_samples: int = NUM_SAMPLES,
    name: str = "local",
    batch_size: int = 1,
    budget_s: float = 60.0,
    seed: int = 0,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> HardwareProfile:
    """Profile `space` under `runtime` on the device this runs on, by `num_samples` whole networks measured here.

    Args:
        sources: profiles of the same space on other devices.
        budget_s: seconds for measuring; making the models takes some more.
        seed: decides weights and the networks of which the measured ones are selected.

    Raises:
        UserError: there are too few samples or too many, not all were measured, or a source is of another space or
            batch size.
        ProfileError: the sources have too little in common to learn from.
    """
    if not MIN_NETWORKS <= num_samples - _ALWAYS <= NUM_CANDIDATES - _ALWAYS:
        raise UserError(f"samples {num_samples} must be {MIN_NETWORKS + _ALWAYS} to {NUM_CANDIDATES}; 20 are usual")
    check_sources(sources, space, batch_size)
    report = progress or no_progress
    plan = plan_profile(
        space,
        [p for p in runtime.precisions if all(p in source.precisions for source in sources)],
        batch_size=batch_size,
        weight_bits=find_weight_bits(runtime),
        signed_activations=runtime.signed_activations,
        convolutions=[p for p in sources[0].convolutions if all(p in source.convolutions for source in sources)],
        num_fit=NUM_CANDIDATES,
        num_held_out=0,
        seed=seed,
        progress=lambda done, total, message="": report(0.5 * done / total, 1, message),
    )
    plan = _selected(plan, sources, num_samples)
    found = measure_plan(
        plan,
        runtime,
        budget_s=budget_s,
        progress=lambda done, total, message="": report(0.5 + 0.5 * done / total, 1, message),
        clock=clock,
    )
    return _assembled(plan, found, sources, name)


def _selected(plan: ProfilePlan, sources: Sequence[HardwareProfile], num_samples: int) -> ProfilePlan:
    """The plan with the networks to measure, and no rows."""
    rest = plan.networks[_ALWAYS:]
    chosen = select_networks(sources, [network.blocks for network in rest], num_samples - _ALWAYS)
    networks = (*plan.networks[:_ALWAYS], *(rest[index] for index in chosen))
    return dataclasses.replace(plan, rows=(), features_RF=plan.features_RF[:0], networks=networks)


def _assembled(
    plan: ProfilePlan, found: Measurements, sources: Sequence[HardwareProfile], name: str
) -> HardwareProfile:
    networks = network_rows(plan, found)
    if len(networks) < len(plan.networks):
        reasons = "".join(f"; {precision} was refused: {reason}" for precision, reason in found.refused.items())
        raise UserError(
            f"only {len(networks)} of {len(plan.networks)} networks were measured{reasons}; give a larger --budget, or "
            "another --runtime"
        )
    rows = tuple(row for row in transferred_rows(sources, networks).rows if row.precision in plan.precisions)
    return profile_of(plan, found, rows, networks, name=name)


def check_sources(sources: Sequence[HardwareProfile], space: SearchSpace, batch_size: int) -> None:
    """UserError unless the sources are of this space and batch size."""
    for source in sources:
        if (source.space, source.space_fingerprint) != (space.name, space.fingerprint):
            raise UserError(
                f"profile {source.name!r} is of space {source.space!r}, another version of it, or images with other "
                f"channels or classes than {space.name!r} has here; name profiles of this space"
            )
        if source.batch_size != batch_size:
            raise UserError(
                f"profile {source.name!r} was measured with --batch {source.batch_size}, not {batch_size}; "
                f"use --batch {source.batch_size}"
            )
