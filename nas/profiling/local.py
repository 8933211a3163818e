"""Measure the models of a plan under a runtime of this machine."""

import time
from collections.abc import Callable, Sequence
from functools import partial

import onnx

from hardware_profiles.device import describe_device
from hardware_profiles.loading import MIN_ROUNDS, Model, load_models, noise
from hardware_profiles.measure import LatencyStats, measure_interleaved
from hardware_profiles.profile import HardwareProfile
from hardware_profiles.runtimes import Runtime
from nas.errors import UserError
from nas.profiling.assemble import Measurements, assemble_profile
from nas.profiling.forms import BUDGET_S, find_convolutions
from nas.profiling.plan import (
    NUM_FIT,
    NUM_HELD_OUT,
    PlannedNetwork,
    PlannedRow,
    ProfilePlan,
    model_input,
    plan_profile,
)
from nas.progress import Progress, no_progress
from nas.saturation import find_weight_bits
from search_spaces import SearchSpace


def profile_device(
    space: SearchSpace,
    *,
    runtime: Runtime,
    name: str = "local",
    batch_size: int = 1,
    budget_s: float = 60.0,
    num_fit: int = NUM_FIT,
    num_held_out: int = NUM_HELD_OUT,
    seed: int = 0,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> HardwareProfile:
    """Profile `space` under `runtime` on the device this runs on.

    Args:
        budget_s: seconds for measuring; making the models takes some more.
        num_fit, num_held_out, seed: as `plan_profile` takes them.

    Raises:
        UserError: the budget is too short to measure anything, or the runtime's int8 is wrong here.
    """
    if budget_s <= 0:
        raise UserError(f"budget of {budget_s} s; profiling needs a positive number of seconds, such as 60")
    report = progress or no_progress
    weight_bits = find_weight_bits(runtime)
    plan = plan_profile(
        space,
        runtime.precisions,
        batch_size=batch_size,
        weight_bits=weight_bits,
        signed_activations=runtime.signed_activations,
        convolutions=find_convolutions(
            space, runtime, batch_size=batch_size, weight_bits=weight_bits, budget_s=min(BUDGET_S, 0.1 * budget_s)
        ),
        num_fit=num_fit,
        num_held_out=num_held_out,
        seed=seed,
        progress=lambda done, total, message="": report(0.2 * done / total, 1, message),
    )
    found = measure_plan(
        plan,
        runtime,
        budget_s=budget_s,
        progress=lambda done, total, message="": report(0.2 + 0.8 * done / total, 1, message),
        clock=clock,
    )
    return assemble_profile(plan, found, name=name)


def measure_plan(
    plan: ProfilePlan,
    runtime: Runtime,
    *,
    budget_s: float,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Measurements:
    """Time the plan's models in common rounds, as many rows and networks as `budget_s` seconds have room for."""
    start_s = clock()
    loaded = load_models(
        runtime,
        empty=_model(plan.empty, ["fp32"]),
        networks=[partial(_network_model, network) for network in plan.networks],
        rows=[partial(_row_model, row) for row in plan.rows],
        budget_s=budget_s,
        clock=clock,
    )
    chosen = [sampler for sampler in (loaded.empty, *loaded.networks, *loaded.rows) if sampler is not None]
    stats = iter(
        measure_interleaved(
            chosen,
            budget_s=budget_s - (clock() - start_s),
            min_rounds=MIN_ROUNDS,
            progress=progress,
            clock=clock,
        )
    )
    call = next(stats)
    found: list[LatencyStats | None] = [
        None if sampler is None else next(stats) for sampler in (*loaded.networks, *loaded.rows)
    ]
    return Measurements(
        device=describe_device(),
        runtime=runtime.name,
        runtime_version=runtime.version,
        runtime_device=runtime.device,
        num_threads=runtime.num_threads,
        weight_bits=plan.weight_bits,
        call=call,
        networks=tuple(found[: len(plan.networks)]),
        rows=tuple(found[len(plan.networks) :]),
        refused=loaded.refused,
        seconds=clock() - start_s,
    )


def _network_model(network: PlannedNetwork) -> Model:
    return _model(network.model, network.precisions)


def _row_model(row: PlannedRow) -> Model:
    return _model(row.model, [row.precision])


def _model(model: onnx.ModelProto, precisions: Sequence[str]) -> Model:
    name, shape = model_input(model)
    return Model(model.SerializeToString(), {name: noise(shape)}, precisions)
