"""A synthetic two-objective architecture search problem with the shape of OFA-MobileNetV3.

45 genes of 3 options: kernel[20] | expansion[20] | depth[5], for 5 units of 4 blocks. Depth switches blocks off, so part of
a genotype is inactive. Objectives: top-1 accuracy in % (higher is better), latency in ms (lower is better);
deterministic in `problem`. Hypervolume is exact, where smallest to largest network is the unit square and the reference
point (1.1, 1.1).
"""

from collections.abc import Sequence

import numpy as np

from nas.search.pareto import hypervolume
from search_spaces.space import Choice, Genotype

NUM_UNITS, NUM_BLOCKS, NUM_OPTIONS = 5, 4, 3
CHOICES = tuple(
    Choice(name=name, values=(0, 1, 2))
    for name in (
        *(f"kernel.{unit}.{block}" for unit in range(NUM_UNITS) for block in range(NUM_BLOCKS)),
        *(f"expansion.{unit}.{block}" for unit in range(NUM_UNITS) for block in range(NUM_BLOCKS)),
        *(f"depth.{unit}" for unit in range(NUM_UNITS)),
    )
)
REFERENCE = 1.1


class ToyProblem:
    """Counts what is measured: `rows` holds the noise-free accuracy and latency of every call of `measure`."""

    def __init__(self, problem: int = 0, *, noise_pct: float = 0.0, noise_seed: int = 0) -> None:
        rng = np.random.RandomState(problem)
        self.kernel_gain = rng.gamma(2.0, 0.35, (NUM_UNITS, NUM_BLOCKS))
        self.expansion_gain = rng.gamma(2.0, 0.35, (NUM_UNITS, NUM_BLOCKS))
        self.interaction = rng.normal(0, 0.25, (NUM_UNITS, NUM_BLOCKS - 1))
        self.block_ms = rng.uniform(0.15, 0.6, (NUM_UNITS, NUM_BLOCKS)) * np.linspace(1.5, 0.7, NUM_UNITS)[:, None]
        self.noise_pct, self.noise = noise_pct, np.random.RandomState(noise_seed)
        self.smallest, self.largest = self.evaluate(np.array([[0], [NUM_OPTIONS - 1]]).repeat(len(CHOICES), axis=1))
        self.rows: list[np.ndarray] = []

    def evaluate(self, vectors: np.ndarray) -> np.ndarray:
        """Accuracy in % and latency in ms (N x 2) of N x 45 gene indices, without noise."""
        kernel, expansion = (part.reshape(-1, NUM_UNITS, NUM_BLOCKS) for part in (vectors[:, :20], vectors[:, 20:40]))
        active = np.arange(NUM_BLOCKS) < vectors[:, 40:, None] + 2
        gain = np.sqrt(kernel / 2) * self.kernel_gain + np.sqrt(expansion / 2) * self.expansion_gain + 0.35
        equal = expansion[:, :, 1:] == expansion[:, :, :-1]
        score = (gain * active).sum((1, 2)) + (self.interaction * equal * active[:, :, 1:]).sum((1, 2))
        cost = np.array([1, 1.25, 1.7])[kernel] * np.array([1, 1.3, 1.9])[expansion]
        return np.stack([80 - 12 * np.exp(-score / 9.0), 2.0 + (self.block_ms * cost * active).sum((1, 2))], axis=1)

    def measure(self, genotype: Genotype) -> dict[str, float]:
        """One evaluation, with noise of `noise_pct` on the latency and a tenth of it, in points, on the accuracy."""
        row = self.evaluate(np.array([[int(genotype[choice.name]) for choice in CHOICES]]))[0]
        self.rows.append(row)
        a, b = self.noise.normal(size=2) * self.noise_pct
        return {"accuracy_pct": float(row[0] + a / 10), "latency_ms": float(row[1] * (1 + b / 100))}

    def hypervolume(self, rows: Sequence[np.ndarray] | np.ndarray) -> float:
        """Of accuracy and latency (N x 2); higher is better."""
        span = self.largest - self.smallest
        losses = (np.asarray(rows) - [self.largest[0], self.smallest[1]]) / span * [-1.0, 1.0]
        return hypervolume(losses, np.full(2, REFERENCE))


def canonical(genotype: Genotype) -> Genotype:
    """Kernels and expansions beyond a unit's depth say nothing."""
    idle = {
        f"{kind}.{unit}.{block}"
        for unit in range(NUM_UNITS)
        for block in range(int(genotype[f"depth.{unit}"]) + 2, NUM_BLOCKS)
        for kind in ("kernel", "expansion")
    }
    return {name: 0 if name in idle else value for name, value in genotype.items()}
