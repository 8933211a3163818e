"""Load the models of a profile one after the other, as many as a budget of time has room for. Needs numpy alone."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hardware_profiles.errors import ProfileError
from hardware_profiles.measure import Sampler
from hardware_profiles.runtimes.runtime import Runtime

MIN_ROUNDS = 5
SAMPLES_BEFORE = 3
"""Of each model before the rounds, to see how long a call takes; each round takes one more."""

SHARE_FOR_NETWORKS = 0.4
"""Of a budget that is too short for all models, what whole networks may take at most."""


class Model(NamedTuple):
    """A model to time."""

    source: bytes | Path
    inputs: Mapping[str, np.ndarray]
    precisions: Sequence[str]
    """Of its blocks; when a model that has but one is refused, so is every later one that has it too."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """Samplers of models; None where time was too short, or the runtime refused the model."""

    empty: Sampler
    networks: Sequence[Sampler | None]
    rows: Sequence[Sampler | None]
    refused: Mapping[str, str]
    """What the runtime said, by precision, of models that it refused."""


def load_models(
    runtime: Runtime,
    *,
    empty: Model,
    networks: Iterable[Callable[[], Model]],
    rows: Iterable[Callable[[], Model]],
    budget_s: float,
    refused: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Loaded:
    """Load and call models until measuring those that are loaded would take `budget_s` seconds.

    Args:
        networks, rows: each makes its model, which takes time too, so those that aren't loaded aren't made.
        refused: precisions that are not to be tried, and why.

    Raises:
        ProfileError: the runtime refuses `empty`.
    """
    loading = _Loading(runtime, refused or {}, clock)
    nothing = loading.load(empty)
    if nothing is None:
        what, why = next(iter(loading.refused.items()))
        raise ProfileError(f"{runtime.name} {runtime.version} can't run {what}: {why}")
    return Loaded(
        empty=nothing,
        networks=[loading.load_within(SHARE_FOR_NETWORKS * budget_s, make) for make in networks],
        rows=[loading.load_within(budget_s, make) for make in rows],
        refused=loading.refused,
    )


def noise(shape: Sequence[int]) -> np.ndarray:
    """An input to time a model on: normally distributed, always the same."""
    return np.random.default_rng(0).standard_normal(tuple(shape), dtype=np.float32)


class _Loading:
    """Adds up how long measuring will take."""

    def __init__(self, runtime: Runtime, refused: Mapping[str, str], clock: Callable[[], float]) -> None:
        self.refused = dict(refused)
        self._runtime, self._clock = runtime, clock
        self._start_s, self._samples_s = clock(), 0.0

    def needed_s(self) -> float:
        """Seconds from the first load to the end of the fewest rounds over all that was loaded."""
        return self._clock() - self._start_s + (SAMPLES_BEFORE + MIN_ROUNDS) * self._samples_s

    def load_within(self, limit_s: float, make: Callable[[], Model]) -> Sampler | None:
        """What `load` gives; None, and no model is made, when measuring takes `limit_s` seconds already."""
        return self.load(make()) if self.needed_s() < limit_s else None

    def load(self, model: Model) -> Sampler | None:
        """A sampler of the model; None when the runtime refuses it, or a model in one of the precisions before."""
        if any(precision in self.refused for precision in model.precisions):
            return None
        try:
            sampler = self._runtime.load(model.source).sampler(model.inputs)
        except ProfileError as error:
            if len(model.precisions) > 1:
                return None  # some row will tell which precision it was
            self.refused[model.precisions[0]] = str(error)
            return None
        start_s = self._clock()
        sampler(1)
        self._samples_s += self._clock() - start_s
        return sampler
