"""The architecture of most entropy under budgets: DeepMAD's mathematical program (Shen et al. 2023), solved exactly.

Once the genes that couple neighbouring blocks (widths) are fixed, entropy, MACs, parameters, layers and latency are
sums over places, and a place's block depends on genes of its own (mixers) and perhaps on one that switches places on
and off (depth). So there is one small integer linear program for each value of the coupling genes. Which genes are of
which sort is found by changing them one at a time in the largest network. Places whose options cost the same are
interchangeable, so the program counts how many of them take an option.

Predicted latency is such a sum for networks of equal size. A program is given the least that it may be for sizes
between two bounds; where the network found takes more, the sizes are divided (branch and bound).

Of the paper's program two things are left out: widths that may not fall from stage to stage, and the penalty of uneven
depths (a space bounds both). Weights that several places share are counted at each of them.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from nas.errors import UserError
from nas.progress import Progress, no_progress
from predictors.entropy import entropy, entropy_weights, log_width, num_layers
from predictors.latency import MIN_SIZE_MB, LatencyPredictor
from search_spaces import Architecture, BlockSpec, Genotype, SearchSpace
from search_spaces.cost import block_cost
from search_spaces.space import Choice, GeneValue

MAX_PROGRAMS = 10_000
"""Values of the coupling genes of which each gets a program."""

QUANTITIES = ("entropy", "macs", "params", "layers", "log_width", "latency_ms", "corrected_ms", "size_mb")
"""What every block adds to; the last are its fp32 row in the profile, what that adds to a prediction, and its size."""

ENTROPY, MACS, PARAMS, LAYERS, LOG_WIDTH, LATENCY, CORRECTED, SIZE = range(len(QUANTITIES))

TOLERANCE = 1e-6
"""By which share of a latency budget it may be exceeded, as programs are solved in floating point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """What an architecture may cost; None is no limit.

    Raises:
        UserError: on construction, when a budget is not positive and finite.
    """

    macs: float | None = None
    params: float | None = None
    latency_ms: float | None = None
    """Predicted, all blocks in fp32."""
    effectiveness: float | None = None
    """Depth over mean width; the paper takes 0.1 to 2.0 at most."""

    def __post_init__(self) -> None:
        for name in ("macs", "params", "latency_ms", "effectiveness"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UserError(f"max_{name} is {value:g}; a budget must be positive")


@dataclass(frozen=True, slots=True)
class Genes:
    """The genes of a space by what they do to the blocks of its largest network."""

    coupling: tuple[Choice, ...]
    switches: dict[str, Choice] = field(default_factory=dict)
    """Place -> the gene that may switch it off."""
    local: dict[str, tuple[Choice, ...]] = field(default_factory=dict)
    """Place -> the genes that change its block and nothing else."""


def max_entropy(
    space: SearchSpace,
    budgets: Budgets,
    *,
    predictor: LatencyPredictor | None = None,
    progress: Progress = no_progress,
) -> Architecture:
    """The architecture with the highest entropy of those that keep the budgets, to a part in a million of each.

    Args:
        predictor: of latency; needed where `latency_ms` is limited.

    Raises:
        UserError: no architecture keeps the budgets, or the space has too many coupling genes for this method.
    """
    if budgets.latency_ms is not None and predictor is None:
        raise UserError("a budget of latency needs a hardware profile; name one, or measure it with `nas profile`")
    genes = sort_genes(space)
    num_programs = math.prod(len(choice.values) for choice in genes.coupling)
    if num_programs > MAX_PROGRAMS:
        names = ", ".join(choice.name for choice in genes.coupling[:3])
        raise UserError(
            f"the genes of '{space.name}' that couple blocks ({names}, ...) have {num_programs} values together, more "
            f"than the {MAX_PROGRAMS} this method tries; search with `nas search --objectives entropy,...` instead"
        )
    programs: list[Program] = []
    for values in _combinations(genes.coupling):
        progress(len(programs), 2 * num_programs, "writing programs")
        programs.append(Program(space, genes, values, predictor))
    rows = list(limit_rows(budgets, max_layers=max(program.max_layers for program in programs)))
    best, best_entropy = None, -math.inf
    for solved, program in enumerate(sorted(programs, key=lambda p: -p.bound)):
        progress(num_programs + solved, 2 * num_programs, "" if best is None else f"entropy {best_entropy:.1f}")
        if program.bound <= best_entropy:
            break
        found = program.best(rows, budgets.latency_ms, above=best_entropy)
        if found is not None:
            best, best_entropy = found
    if best is None:
        raise UserError(f"no architecture of '{space.name}' keeps all budgets; loosen one of them")
    if not math.isclose(entropy(space.blocks(best)), best_entropy, rel_tol=1e-6):
        raise UserError(
            f"blocks of '{space.name}' depend on each other in ways that no sum over blocks has, so there is no such "
            "program; search with `nas search --objectives entropy,...` instead"
        )
    return best


def sort_genes(space: SearchSpace) -> Genes:
    """Try every value of every gene in the largest network, and see what it changes."""
    largest = space.largest().genotype
    blocks = _blocks(space, largest)
    coupling: list[Choice] = []
    switches: dict[str, Choice] = {}
    local: dict[str, tuple[Choice, ...]] = {}
    for choice in space.choices:
        variants = [_blocks(space, largest | {choice.name: value}) for value in choice.values]
        changed = {name for v in variants for name in v.keys() & blocks.keys() if v[name] != blocks[name]}
        removed = {name for v in variants for name in blocks.keys() - v.keys()}
        same_order = all(list(v) == [name for name in blocks if name in v] for v in variants)
        if same_order and not removed and len(changed) == 1:
            (place,) = changed
            local[place] = (*local.get(place, ()), choice)
        elif same_order and removed and not changed and not removed & switches.keys():
            switches |= dict.fromkeys(removed, choice)
        elif changed or removed or not same_order:
            coupling.append(choice)
    return Genes(tuple(coupling), switches, local)


Row = tuple[np.ndarray, float]
"""Coefficients of `QUANTITIES`, and what their sum may be at most."""


def limit_rows(budgets: Budgets, *, max_layers: int) -> Iterator[Row]:
    """All budgets but that of latency."""
    for quantity, bound in ((MACS, budgets.macs), (PARAMS, budgets.params)):
        if bound is not None:
            yield _row({quantity: 1.0}), math.floor(bound) + 0.5
    if budgets.effectiveness is not None:
        yield from _effectiveness_rows(budgets.effectiveness, max_layers)


def latency_rows(
    bound: float | None, predictor: LatencyPredictor | None, low_mb: float, high_mb: float
) -> Iterator[list[Row]]:
    """Alternatives, one of which all networks between two sizes keep whose predicted latency is within a bound.

    A prediction is cut off at two multiples of the plain sum, so there are two ways to keep one.
    """
    if bound is None or predictor is None:
        yield []
        return
    form = predictor.linear_form()
    ratio = form.least_size_ratio(low_mb, high_mb)
    rows = [
        (_row({CORRECTED: 1.0, LATENCY: ratio}), bound - form.fixed_ms - ratio * form.call_ms),
        (_row({SIZE: 1.0}), high_mb),
        (_row({SIZE: -1.0}), -low_mb),
    ]
    if form.lowest_ratio == 0 and math.isinf(form.highest_ratio):
        yield rows
        return
    yield [*rows, (_row({LATENCY: form.lowest_ratio}), bound - form.lowest_ratio * form.call_ms)]
    yield [(_row({LATENCY: form.highest_ratio}), bound - form.highest_ratio * form.call_ms)]


def _effectiveness_rows(limit: float, max_layers: int) -> list[Row]:
    """depth / exp(log_width / depth) <= limit, that is depth (log depth - log limit) <= log_width.

    The left side is convex, so at whole depths it is the highest of the lines through neighbouring ones.
    """
    depth = np.arange(1, max_layers + 2)
    convex = depth * (np.log(depth) - math.log(limit))
    lines = zip(depth[:-1], convex[:-1], np.diff(convex), strict=True)
    return [(_row({LAYERS: slope, LOG_WIDTH: -1.0}), slope * at - height) for at, height, slope in lines]


class Program:
    """The integer program for one value of the coupling genes.

    Variables are, for each switch, which value it has, and for each group of interchangeable places how many of them
    take an option.
    """

    def __init__(self, space: SearchSpace, genes: Genes, coupled: Genotype, predictor: LatencyPredictor | None) -> None:
        self._space, self._predictor = space, predictor
        self._base = space.largest().genotype | coupled
        blocks = _blocks(space, self._base)
        weights = dict(zip(blocks, entropy_weights(tuple(blocks.values())), strict=True))
        self._switches = tuple(dict.fromkeys(genes.switches.values()))
        self._names = [[_blocks(space, self._base | {c.name: v}).keys() for v in c.values] for c in self._switches]
        self._options = {place: list(_combinations(genes.local.get(place, ()))) for place in blocks}
        groups: dict[bytes, tuple[list[str], np.ndarray]] = {}
        for place, options in self._options.items():
            specs = [_blocks(space, self._base | option)[place] for option in options]
            amounts_OQ = np.array([_amounts(spec, weights[place], predictor) for spec in specs])
            groups.setdefault(amounts_OQ.tobytes(), ([], amounts_OQ))[0].append(place)
        self._groups = list(groups.values())
        self._always = set(blocks) - genes.switches.keys()
        most_Q = sum(len(places) * amounts_OQ.max(axis=0) for places, amounts_OQ in self._groups)
        self.bound = float(most_Q[ENTROPY])
        """Entropy that no solution exceeds."""
        self.max_layers = int(most_Q[LAYERS])
        least_mb = sum(len(self._always.intersection(p)) * a[:, SIZE].min() for p, a in self._groups)
        self.sizes_mb = (max(float(least_mb), MIN_SIZE_MB), float(most_Q[SIZE]))
        """Between which those of all solutions lie."""

    def best(self, rows: Sequence[Row], bound_ms: float | None, *, above: float) -> tuple[Architecture, float] | None:
        """The architecture of most entropy within `rows` and a bound of predicted latency, and its entropy.

        None where no entropy is higher than `above`.
        """
        best: tuple[Architecture, float] | None = None
        sizes_mb = [self.sizes_mb]
        while sizes_mb:
            low_mb, high_mb = sizes_mb.pop()
            for latency in latency_rows(bound_ms, self._predictor, low_mb, high_mb):
                better = [] if math.isinf(above) else [(_row({ENTROPY: -1.0}), -above)]
                found = self.solve([*rows, *latency, *better])
                if found is None or found[1] <= above:
                    continue
                if not (self._keeps(found[0], bound_ms) or math.isclose(low_mb, high_mb)):
                    middle_mb = math.sqrt(low_mb * high_mb)
                    sizes_mb += [(low_mb, middle_mb), (middle_mb, high_mb)]
                    break
                best, above = found, found[1]
        return best

    def _keeps(self, architecture: Architecture, bound_ms: float | None) -> bool:
        """Is its predicted latency within a bound?"""
        if bound_ms is None or self._predictor is None:
            return True
        network = [(spec.cost_key, "fp32") for spec in self._space.blocks(architecture)]
        return bool(self._predictor.predict([network])[0] <= bound_ms * (1 + TOLERANCE))

    def solve(self, limits: Sequence[Row]) -> tuple[Architecture, float] | None:
        """The architecture of most entropy within the limits, and its entropy; None where there is none."""
        num_switched = sum(len(choice.values) for choice in self._switches)
        columns = np.concatenate([np.zeros((num_switched, len(QUANTITIES))), *(a for _, a in self._groups)])
        rows_MV, counts_M = self._structure(len(columns))
        bounded = [LinearConstraint(rows_MV, counts_M, counts_M)]
        if limits:
            coefficients = np.stack([row for row, _ in limits])
            bounded.append(LinearConstraint(coefficients @ columns.T, -np.inf, [bound for _, bound in limits]))
        highest = np.concatenate([np.ones(num_switched), *(np.full(len(a), len(p)) for p, a in self._groups)])
        scale = max(self.bound, 1.0)
        result = milp(
            -columns[:, ENTROPY] / scale,
            integrality=np.ones(len(columns)),
            bounds=Bounds(0, highest),
            constraints=bounded,
            options={"mip_rel_gap": 0.0},
        )
        if result.x is None:
            return None
        taken = result.x.round().astype(int)
        return self._architecture(taken), float(taken @ columns[:, ENTROPY])

    def _structure(self, num_variables: int) -> tuple[np.ndarray, np.ndarray]:
        """Equalities: a switch has one value; as many options of a group are taken as it has places switched on."""
        rows, counts = [], []
        start = 0
        starts = []
        for choice in self._switches:
            row = np.zeros(num_variables)
            row[start : start + len(choice.values)] = 1
            rows.append(row)
            counts.append(1.0)
            starts.append(start)
            start += len(choice.values)
        for places, amounts_OQ in self._groups:
            row = np.zeros(num_variables)
            row[start : start + len(amounts_OQ)] = 1
            start += len(amounts_OQ)
            switched = [place for place in places if place not in self._always]
            for first, names_V in zip(starts, self._names, strict=True):
                governed = [place for place in switched if any(place not in names for names in names_V)]
                row[first : first + len(names_V)] -= [sum(place in names for place in governed) for names in names_V]
            rows.append(row)
            counts.append(float(len(places) - len(switched)))
        return np.array(rows), np.array(counts)

    def _architecture(self, taken: np.ndarray) -> Architecture:
        genotype, start = dict(self._base), 0
        for choice in self._switches:
            chosen = taken[start : start + len(choice.values)]
            genotype[choice.name] = choice.values[int(chosen.argmax())]
            start += len(choice.values)
        present = _blocks(self._space, genotype)
        for places, amounts_OQ in self._groups:
            counts = taken[start : start + len(amounts_OQ)]
            start += len(amounts_OQ)
            options = np.repeat(np.arange(len(counts)), counts)
            for place, option in zip((p for p in places if p in present), options, strict=True):
                genotype |= self._options[place][option]
        return self._space.architecture(genotype)


def _combinations(choices: Iterable[Choice]) -> Iterator[Genotype]:
    choices = tuple(choices)
    for values in itertools.product(*(choice.values for choice in choices)):
        yield dict(zip((choice.name for choice in choices), values, strict=True))


def _blocks(space: SearchSpace, genotype: Mapping[str, GeneValue]) -> dict[str, BlockSpec]:
    return {spec.name: spec for spec in space.describe(space.canonical(dict(genotype)))}


def _amounts(spec: BlockSpec, weight: float, predictor: LatencyPredictor | None) -> list[float]:
    """`QUANTITIES` of one block; layers and widths of those alone that count in the entropy."""
    cost, log = block_cost(spec), log_width(spec)
    on_device = [0.0, 0.0, 0.0]
    if predictor is not None:
        index = predictor.profile.row(spec.cost_key, "fp32")
        row = predictor.profile.rows[index]
        on_device = [row.latency_ms, predictor.linear_form().rows_ms[index], row.size_bytes / 1e6]
    stack = (num_layers(spec), log) if weight else (0, 0.0)
    return [weight * log, cost.macs, cost.num_params, *stack, *on_device]


def _row(coefficients: Mapping[int, float]) -> np.ndarray:
    row = np.zeros(len(QUANTITIES))
    for quantity, value in coefficients.items():
        row[quantity] = value
    return row
