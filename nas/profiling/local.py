"""Measure the models of a plan under a runtime of this machine."""

import time
from collections.abc import Callable

import numpy as np
import onnx

from hardware_profiles.device import describe_device
from hardware_profiles.errors import ProfileError
from hardware_profiles.measure import LatencyStats, Sampler, measure_interleaved
from hardware_profiles.profile import HardwareProfile
from hardware_profiles.runtimes import Runtime
from nas.errors import UserError
from nas.profiling.assemble import Measurements, assemble_profile
from nas.profiling.plan import NUM_FIT, NUM_HELD_OUT, ProfilePlan, plan_profile
from nas.progress import Progress, no_progress
from nas.saturation import find_weight_bits
from search_spaces import SearchSpace

MIN_ROUNDS = 5
CALLS_BEFORE = 8
"""Of each model, to load it, to see how long it takes and to warm it up; in every round follow two more."""

SHARE_FOR_NETWORKS = 0.4
"""Of a budget that is too short for all models, what whole networks may take at most."""


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
    loading = _Loading(runtime, clock)
    reference, empty = loading.load(plan.reference, "fp32"), loading.load(plan.empty, "fp32")
    if reference is None or empty is None:
        raise UserError(f"{runtime.name} {runtime.version} can't run fp32 networks: {loading.refused['fp32']}")
    networks: list[Sampler | None] = [
        loading.load(network.model, *sorted({precision for _, precision in network.blocks}))
        if loading.needed_s() < SHARE_FOR_NETWORKS * budget_s
        else None
        for network in plan.networks
    ]
    rows = [loading.load(row.model, row.precision) if loading.needed_s() < budget_s else None for row in plan.rows]
    chosen = [sampler for sampler in (empty, *networks, *rows) if sampler is not None]
    stats = iter(
        measure_interleaved(
            chosen,
            budget_s=budget_s - (clock() - start_s),
            min_rounds=MIN_ROUNDS,
            reference=reference,
            progress=progress,
            clock=clock,
        )
    )
    call = next(stats)
    found: list[LatencyStats | None] = [None if sampler is None else next(stats) for sampler in (*networks, *rows)]
    return Measurements(
        device=describe_device(),
        runtime=runtime.name,
        runtime_version=runtime.version,
        runtime_device=runtime.device,
        num_threads=runtime.num_threads,
        weight_bits=plan.weight_bits,
        call=call,
        networks=tuple(found[: len(networks)]),
        rows=tuple(found[len(networks) :]),
        refused=loading.refused,
        seconds=clock() - start_s,
    )


class _Loading:
    """Loads models one after the other and adds up how long measuring them will take."""

    def __init__(self, runtime: Runtime, clock: Callable[[], float]) -> None:
        self.refused: dict[str, str] = {}
        self._runtime, self._clock, self._rng = runtime, clock, np.random.default_rng(0)
        self._start_s, self._call_s = clock(), 0.0

    def needed_s(self) -> float:
        """Seconds from the first load to the end of the fewest rounds over all that was loaded."""
        return self._clock() - self._start_s + (CALLS_BEFORE + 2 * MIN_ROUNDS) * self._call_s

    def load(self, model: onnx.ModelProto, *precisions: str) -> Sampler | None:
        """A sampler of the model; None when the runtime refuses it, or a model in one of the precisions before."""
        if any(precision in self.refused for precision in precisions):
            return None
        value = model.graph.input[0]
        shape = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        try:
            session = self._runtime.load(model.SerializeToString())
            sampler = session.sampler({value.name: self._rng.standard_normal(shape, dtype=np.float32)})
        except ProfileError as error:
            if len(precisions) > 1:
                return None  # some row will tell which precision it was
            self.refused[precisions[0]] = str(error)
            return None
        self._call_s += sampler(1)
        return sampler
