"""What the cells of NAS-Bench-201 are made of: operations that lead from input to output, and the paths they form.

An operation through which nothing flows is none at all, and a skip connection adds no layer to a path. Cells that
differ in operations that lead nowhere have the same description. Paths as features: White et al. 2021, "BANANAS".
"""

from functools import cache

import numpy as np

from search_spaces.space import Genotype

EDGES = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
"""Operation `op_i_j` leads from node j to node i; 0 is the input, 3 the output."""
PATHS = (((3, 0),), ((1, 0), (3, 1)), ((2, 0), (3, 2)), ((1, 0), (2, 1), (3, 2)))
LAYERS = ("nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
USED = ("skip_connect", *LAYERS)
SEQUENCES = tuple(
    (*before, layer)
    for before in ((), *((a,) for a in LAYERS), *((a, b) for a in LAYERS for b in LAYERS))
    for layer in LAYERS
)
"""Layers of a path in order, one to three."""


def describe(genotypes: list[Genotype]) -> list[np.ndarray]:
    """For N cells the used operation of each edge (N x 24), counts and depths (N x 10), and paths (N x 40)."""
    parts = [_of_cell(tuple(str(genotype[f"op_{i}_{j}"]) for i, j in EDGES)) for genotype in genotypes]
    return [np.stack(kind) for kind in zip(*parts, strict=True)]


@cache
def _of_cell(operations: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    edges = dict(zip(EDGES, operations, strict=True))
    open_paths = [path for path in PATHS if all(edges[edge] != "none" for edge in path)]
    used = {edge: edges[edge] for path in open_paths for edge in path}
    layers = [tuple(used[edge] for edge in path if used[edge] != "skip_connect") for path in open_paths]
    edge_operations = [float(used.get(edge) == operation) for edge in EDGES for operation in USED]
    counts = [float(list(used.values()).count(operation)) for operation in USED]
    convolutions = [sum(layer != "avg_pool_3x3" for layer in path) for path in layers]
    large, pools = ([path.count(name) for path in layers] for name in ("nor_conv_3x3", "avg_pool_3x3"))
    depths = [pick(values, default=-1) for values in (convolutions, pools) for pick in (min, max)]
    sequences = [float(layers.count(sequence)) for sequence in ((), *SEQUENCES)]
    return (
        np.array(edge_operations),
        np.array([*counts, *depths, max(large, default=-1), len(layers)]),
        np.array(sequences),
    )
