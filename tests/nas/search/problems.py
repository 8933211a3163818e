"""Small search problems whose true fronts are known by enumeration."""

import numpy as np

from nas.search.objectives import Objective
from nas.search.searchers import SEARCHERS
from search_spaces.space import Choice, Genotype

SEARCHER_NAMES = sorted(SEARCHERS)

CHOICES = (
    Choice(name="depth", values=(1, 2, 3)),
    Choice(name="kernel.0", values=(3, 5, 7)),
    Choice(name="kernel.1", values=(3, 5, 7)),
    Choice(name="kernel.2", values=(3, 5, 7)),
    Choice(name="width", values=(0.5, 1.0, 1.5, 2.0)),
    Choice(name="norm", values=(False, True)),
    Choice(name="mixer", values=("conv", "attention")),
)
OBJECTIVES = (Objective("error_pct", unit="%"), Objective("latency_ms", unit="ms"))
NUM_DISTINCT = (3 + 3**2 + 3**3) * 4 * 2 * 2

_GAIN = {"kernel.0": 1.0, "kernel.1": 0.7, "kernel.2": 0.4}


def canonical(genotype: Genotype) -> Genotype:
    """Kernels beyond the depth say nothing."""
    inactive = [f"kernel.{i}" for i in range(3) if i >= int(genotype["depth"])]
    return {name: 3 if name in inactive else value for name, value in genotype.items()}


def evaluate(genotype: Genotype) -> dict[str, float]:
    """Error falls and latency grows with size; attention pays off only where the network is wide."""
    kernels = [(name, float(genotype[name])) for name in list(_GAIN)[: int(genotype["depth"])]]
    width, attention = float(genotype["width"]), genotype["mixer"] == "attention"
    score = sum(_GAIN[name] * np.sqrt(kernel) for name, kernel in kernels) * np.sqrt(width)
    score += 0.3 * bool(genotype["norm"]) + attention * (width - 1.2)
    cost = sum(kernel for _, kernel in kernels) * width + 1.0 * bool(genotype["norm"]) + 3.0 * attention
    return {"error_pct": float(60 * np.exp(-score / 3)), "latency_ms": 0.1 * cost + 0.5}


LARGE_CHOICES = tuple(Choice(name=f"gene.{i}", values=(0, 1, 2)) for i in range(20))


def evaluate_large(genotype: Genotype) -> dict[str, float]:
    """Twenty genes, far too many combinations to enumerate; error and latency pull each gene apart."""
    values = np.array([float(v) for v in genotype.values()])
    gain, cost = np.linspace(1, 3, 20), np.linspace(2, 1, 20)
    return {"error_pct": float(100 - gain @ np.sqrt(values)), "latency_ms": float(1 + cost @ values**1.5)}
