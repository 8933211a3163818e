"""What the cells of NAS-Bench-201 are made of: operations that lead from input to output, and the paths they form.

An operation through which nothing flows is none at all, and a skip connection adds no layer to a path. Runtimes that
compile a network leave out what its output doesn't need; others run every operation. Paths as features: White et al.
2021, "BANANAS".
"""

from functools import cache

import numpy as np

from nas.search.problem import Description
from search_spaces.space import Genotype

EDGES = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
"""Operation `op_i_j` leads from node j to node i; 0 is the input, 3 the output."""
GENES = tuple(f"op_{target}_{source}" for target, source in EDGES)
PATHS = (((3, 0),), ((1, 0), (3, 1)), ((2, 0), (3, 2)), ((1, 0), (2, 1), (3, 2)))
LAYERS = ("nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
USED = ("skip_connect", *LAYERS)
SEQUENCES = tuple(
    (*before, layer)
    for before in ((), *((a,) for a in LAYERS), *((a, b) for a in LAYERS for b in LAYERS))
    for layer in LAYERS
)
"""Layers of a path in order, one to three."""


def describe(genotypes: list[Genotype]) -> dict[str, Description]:
    """For N cells four descriptions.

    `needed`: cells without the operations that don't lead to the output; `used`: also without those that the input
    doesn't lead to; `needed-used`: both; `paths`: the used operations, their counts and depths (N x 10), and the paths
    (N x 40).
    """
    operations = [tuple(str(genotype[gene]) for gene in GENES) for genotype in genotypes]
    needed, used = list(map(_needed, operations)), list(map(_used, operations))
    counts, sequences = (np.array(kind) for kind in zip(*map(_counted, operations), strict=True))
    return {"needed": [needed], "used": [used], "needed-used": [needed, used], "paths": [used, counts, sequences]}


@cache
def _needed(operations: tuple[str, ...]) -> Genotype:
    edges = [edge for edge, operation in zip(EDGES, operations, strict=True) if operation != "none"]
    nodes = {3} | {source for target, source in edges if target == 3}
    nodes |= {source for target, source in edges if target in nodes}
    return _without(operations, {edge for edge in EDGES if edge[0] not in nodes})


@cache
def _used(operations: tuple[str, ...]) -> Genotype:
    return _without(operations, set(EDGES).difference(*_open_paths(operations)))


def _without(operations: tuple[str, ...], dead: set[tuple[int, int]]) -> Genotype:
    kept = ["none" if edge in dead else operation for edge, operation in zip(EDGES, operations, strict=True)]
    return dict(zip(GENES, kept, strict=True))


def _open_paths(operations: tuple[str, ...]) -> list[tuple[tuple[int, int], ...]]:
    edges = dict(zip(EDGES, operations, strict=True))
    return [path for path in PATHS if all(edges[edge] != "none" for edge in path)]


@cache
def _counted(operations: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    edges, used = dict(zip(EDGES, operations, strict=True)), list(_used(operations).values())
    paths = [[edges[edge] for edge in path] for path in _open_paths(operations)]
    layers = [tuple(operation for operation in path if operation != "skip_connect") for path in paths]
    counts = [float(used.count(operation)) for operation in USED]
    convolutions = [sum(layer != "avg_pool_3x3" for layer in path) for path in layers]
    large, pools = ([path.count(name) for path in layers] for name in ("nor_conv_3x3", "avg_pool_3x3"))
    depths = [pick(values, default=-1) for values in (convolutions, pools) for pick in (min, max)]
    sequences = [float(layers.count(sequence)) for sequence in ((), *SEQUENCES)]
    return np.array([*counts, *depths, max(large, default=-1), len(layers)]), np.array(sequences)
