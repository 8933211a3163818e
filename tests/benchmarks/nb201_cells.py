"""What the cells of NAS-Bench-201 are made of: the operations that are run, and the paths that they form.

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
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
LAYERS = OPERATIONS[2:]
SEQUENCES = tuple(
    (*before, layer)
    for before in ((), *((a,) for a in LAYERS), *((a, b) for a in LAYERS for b in LAYERS))
    for layer in LAYERS
)
"""Layers of a path in order, one to three."""


def describe(genotypes: list[Genotype]) -> dict[str, Description]:
    """For N cells eight descriptions, four of them by genes and four by numbers alone.

    `needed`: cells without the operations that don't lead to the output; `used`: also without those that the input
    doesn't lead to; `needed-used`: both; `sequences`: the used operations, `paths`, and how many paths there are of
    each sequence of layers (N x 40). `run`: how many operations are of each kind (N x 5); `needed-counts`: the same of
    those that lead to the output; `paths`: counts, lengths and totals of the paths from input to output (N x 16);
    `layers`: `needed-counts` and `paths`.
    """
    operations = [tuple(str(genotype[gene]) for gene in GENES) for genotype in genotypes]
    needed, used = list(map(needed_of, operations)), list(map(used_of, operations))
    run, counts = (np.array(list(map(_counts, kind))) for kind in (operations, needed))
    paths, sequences = (np.array(kind) for kind in zip(*map(_paths, operations), strict=True))
    needed_cells, used_cells = ([dict(zip(GENES, cell, strict=True)) for cell in kind] for kind in (needed, used))
    return {
        "needed": [needed_cells],
        "used": [used_cells],
        "needed-used": [needed_cells, used_cells],
        "sequences": [used_cells, paths, sequences],
        "run": [run],
        "needed-counts": [counts],
        "paths": [paths],
        "layers": [counts, paths],
    }


@cache
def needed_of(operations: tuple[str, ...]) -> tuple[str, ...]:
    """The operations of a cell, those that don't lead to the output as none."""
    edges = [edge for edge, operation in zip(EDGES, operations, strict=True) if operation != "none"]
    nodes = {3} | {source for target, source in edges if target == 3}
    nodes |= {source for target, source in edges if target in nodes}
    return _without(operations, {edge for edge in EDGES if edge[0] not in nodes})


@cache
def used_of(operations: tuple[str, ...]) -> tuple[str, ...]:
    """The operations of a cell, those on no path from input to output as none."""
    return _without(operations, set(EDGES).difference(*_open_paths(operations)))


def _without(operations: tuple[str, ...], dead: set[tuple[int, int]]) -> tuple[str, ...]:
    return tuple("none" if edge in dead else name for edge, name in zip(EDGES, operations, strict=True))


def _open_paths(operations: tuple[str, ...]) -> list[tuple[tuple[int, int], ...]]:
    edges = dict(zip(EDGES, operations, strict=True))
    return [path for path in PATHS if all(edges[edge] != "none" for edge in path)]


@cache
def _counts(operations: tuple[str, ...]) -> list[float]:
    return [float(operations.count(name)) for name in OPERATIONS]


@cache
def _paths(operations: tuple[str, ...]) -> tuple[list[float], list[float]]:
    """The columns of `paths` and the sequences.

    Used operations of each kind; fewest and most convolutions and poolings of a path (-1: there is no path); most 3x3
    convolutions, and of paths that pool nothing most convolutions and most 3x3 ones; totals of all paths: 3x3, 1x1,
    poolings; paths, and those without a layer.
    """
    edges = dict(zip(EDGES, operations, strict=True))
    paths = [tuple(edges[e] for e in path if edges[e] != "skip_connect") for path in _open_paths(operations)]
    small, large, pools = ([path.count(name) for path in paths] for name in LAYERS)
    both = [a + b for a, b in zip(small, large, strict=True)]
    sharp = [row for row, pooled in enumerate(pools) if not pooled]
    ends = [pick(values, default=-1) for values in (both, pools) for pick in (min, max)]
    most = [max(large, default=-1), *(max((values[row] for row in sharp), default=-1) for values in (both, large))]
    totals = [sum(large), sum(small), sum(pools), len(paths), paths.count(())]
    columns = [*_counts(used_of(operations))[1:], *ends, *most, *totals]
    return list(map(float, columns)), [float(paths.count(sequence)) for sequence in ((), *SEQUENCES)]
