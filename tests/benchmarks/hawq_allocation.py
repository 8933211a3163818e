"""The allocator on HAWQ-V3's published sensitivities (Yao et al. 2021): 4 or 8 bits for each layer of two ResNets.

    python -m tests.benchmarks.hawq_allocation --data DIR --output FILE

DIR holds `resnet18_layers.csv` and `resnet50_layers.csv`, a row a layer. The damage of a layer is the trace of its
Hessian times its squared weight error; the budget lies a fraction of the way from all layers at 4 bits to all at 8.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from cyclopts import App
from rich.console import Console
from rich.table import Table

from nas.allocation import allocate
from nas.errors import UserError
from nas.results import replace_text

BITS = (4, 8)
FRACTIONS = (0.25, 0.5, 0.75)
BUDGETS = ("modelsize", "latency", "bops")
TIES = {"resnet18": ((4, 6), (9, 11), (14, 16)), "resnet50": ((0, 3), (10, 13), (23, 26), (42, 45))}
"""A block's first layer and its shortcut read the same tensor, so they agree."""

LATENCIES = tuple(f"lat_ms_int{bits}_T4" for bits in BITS)
ERRORS = tuple(f"dw{bits}_sq" for bits in BITS)
COLUMNS = ("layer_idx", "hutchinson_trace", *ERRORS, "params_M", "macs_M", *LATENCIES)

app = App(help=__doc__)


@app.default
def main(*, data: Path, output: Path) -> None:
    """Write a row a network, kind of budget, fraction and layer, and print how many layers got how many bits."""
    try:
        frame = pd.concat([configurations(load(data, network), network) for network in TIES], ignore_index=True)
        replace_text(output, frame.to_csv(index=False))
    except UserError as error:
        sys.exit(f"hawq_allocation: {error}")
    table = Table("network", "budget", "fraction", "layers at 4 bits", "layers at 8 bits", "8-bit layers")
    for (network, budget, fraction), rows in frame.groupby(["network", "budget", "fraction"], sort=False):
        high = rows["layer"][rows["bits"] == BITS[1]]
        names = ", ".join(map(str, high))
        table.add_row(network, budget, f"{fraction:g}", str(len(rows) - len(high)), str(len(high)), names)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def load(folder: Path, network: str) -> pd.DataFrame:
    """The layers of a network in order; UserError when the file is missing or odd."""
    path = folder / f"{network}_layers.csv"
    try:
        layers = pd.read_csv(path)
        numbers = layers[list(COLUMNS)].astype(float)
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}; give --data the folder of the layer tables") from None
    except KeyError as error:
        raise UserError(
            f"{path} lacks columns: {' '.join(map(str, error.args))}; it needs {', '.join(COLUMNS)}"
        ) from None
    except ValueError as error:
        raise UserError(f"{path} is no table of numbers: {' '.join(str(error).split())}; mend the file") from None
    last = max(layer for tie in TIES[network] for layer in tie)
    if not np.isfinite(numbers.to_numpy()).all() or (numbers < 0).to_numpy().any():
        raise UserError(f"{path} has values that are missing, negative or infinite; mend the file")
    if numbers["layer_idx"].tolist() != list(range(len(numbers))) or len(numbers) <= last:
        raise UserError(f"{path}: layer_idx must count 0, 1, 2, ... to {last} or more; mend the file")
    return numbers


def configurations(layers: pd.DataFrame, network: str) -> pd.DataFrame:
    """The bits of each layer under every budget: columns network, budget, fraction, layer, bits."""
    damage = layers[list(ERRORS)].mul(layers["hutchinson_trace"], axis=0).to_numpy()
    parts = []
    for budget in BUDGETS:
        costs = layer_costs(layers, budget)
        low, high = costs.sum(axis=0)
        for fraction in FRACTIONS:
            chosen = allocate(costs.tolist(), damage.tolist(), low + fraction * (high - low), groups=TIES[network])
            parts.append(_rows(network, budget, fraction, chosen))
    return pd.concat(parts, ignore_index=True)


def layer_costs(layers: pd.DataFrame, budget: str) -> np.ndarray:
    """Cost of each layer at 4 and at 8 bits, shape (layers, 2): Mbit, ms on a T4, or millions of bit operations."""
    if budget == "latency":
        return layers[list(LATENCIES)].to_numpy()
    if budget == "bops":  # activations have as many bits as weights
        return np.outer(layers["macs_M"], np.square(BITS))
    return np.outer(layers["params_M"], BITS)


def _rows(network: str, budget: str, fraction: float, chosen: Sequence[int]) -> pd.DataFrame:
    layers = {"layer": range(len(chosen)), "bits": [BITS[option] for option in chosen]}
    return pd.DataFrame({"network": network, "budget": budget, "fraction": fraction, **layers})


if __name__ == "__main__":
    app()
