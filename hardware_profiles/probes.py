"""Models whose exact result is known: how many bits int8 weights may have on a device. Needs numpy alone."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hardware_profiles.runtimes.runtime import Runtime

TOLERANCE = 0.02
"""Of the largest output: a convolution's may be an 8-bit level off, a saturated sum is wrong by half."""


class Probe(NamedTuple):
    """A model in int8 with one input of ones, and what it gives when nothing saturates."""

    source: bytes | Path
    input: tuple[str, tuple[int, ...]]
    """Name and shape."""
    expected: np.ndarray


def exact_weight_bits(runtime: Runtime, probes: Iterable[tuple[int, Iterable[Probe]]]) -> int | None:
    """The first number of bits of weights whose probes the runtime all computes exactly; None when there is none."""
    for bits, of_these_bits in probes:
        if all(_is_exact(runtime, probe) for probe in of_these_bits):
            return bits
    return None


def _is_exact(runtime: Runtime, probe: Probe) -> bool:
    name, shape = probe.input
    found = runtime.load(probe.source).run({name: np.ones(shape, dtype=np.float32)})[0]
    return bool(np.abs(found - probe.expected).max() <= TOLERANCE * np.abs(probe.expected).max())
