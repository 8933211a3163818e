"""The exact allocator: one option for every item, least summed sensitivity within a budget, by integer programming."""

from collections.abc import Iterable, Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from nas.errors import UserError

TOLERANCE = 1e-11
"""Share of a sum by which equal sums may differ, because floating-point numbers were added in another order."""

SCALE = 1e4
"""What costs and sensitivities range over for the solver, whose tolerances are absolute (1e-6): a share of 1e-10."""


def allocate(
    costs: Sequence[Sequence[float]],
    sensitivities: Sequence[Sequence[float]],
    budget: float,
    *,
    groups: Iterable[Iterable[int]] = (),
) -> list[int]:
    """The option of each item that minimises the summed sensitivity while the summed cost is at most `budget`.

    Exact (HiGHS, branch and cut) and repeatable; of equally sensitive choices it takes the one of lowest cost. With
    blocks as items and precisions as options this is the bit allocation of HAWQ-V3 (Yao et al. 2021).

    Args:
        costs: for each item, the cost of each of its options; any number of options.
        sensitivities: in the same layout; lower is better.
        budget: in the unit of the costs.
        groups: numbers of items that must take the same option; they need equally many options.

    Raises:
        UserError: even the cheapest choice costs more than the budget.
        ValueError: layouts differ, a number is not finite, or items of a group have different numbers of options.
    """
    member_I = _check(costs, sensitivities, budget, groups)
    cost = _merge(costs, member_I)
    sensitivity = _merge(sensitivities, member_I)
    least = sum(float(c.min()) for c in cost)
    slack = TOLERANCE * sum(float(np.abs(c).max()) for c in cost)
    if budget < least - slack:
        raise UserError(f"a budget of {budget:.12g} is below the least possible cost; give {least:.12g} or more")
    weight, weight_scale = _scaled(cost)
    value, _ = _scaled(sensitivity)
    limit = max(0.0, budget - least + slack) * weight_scale
    one_each = LinearConstraint(_one_each(cost), 1, 1)
    best = _solve(value, [one_each, LinearConstraint(weight[None], -np.inf, limit)])
    within = LinearConstraint(weight[None], -np.inf, max(limit, float(weight @ best)))  # by the solver's tolerance more
    as_good = LinearConstraint(value[None], -np.inf, float(value @ best) + TOLERANCE * SCALE)
    cheapest = _solve(weight, [one_each, within, as_good])
    return [_option(cheapest, cost, int(member)) for member in member_I]


def _check(
    costs: Sequence[Sequence[float]],
    sensitivities: Sequence[Sequence[float]],
    budget: float,
    groups: Iterable[Iterable[int]],
) -> np.ndarray:
    """For each item the number of the merged item that stands for its group."""
    num_options = [len(options) for options in costs]
    if not num_options or 0 in num_options or num_options != [len(options) for options in sensitivities]:
        raise ValueError("costs and sensitivities need equally many items, one at least, and equally many options each")
    numbers = np.concatenate([np.asarray(c, float) for c in (*costs, *sensitivities)])
    if not (np.isfinite(numbers).all() and np.isfinite(budget)):
        raise ValueError("costs, sensitivities and the budget must be finite; leave impossible options out")
    pairs = [(first, item) for first, *others in map(list, groups) for item in others]
    for first, item in pairs:
        if num_options[first] != num_options[item]:
            raise ValueError(f"items {first} and {item} must agree, but have different numbers of options")
    ends = np.array(pairs, int).reshape(-1, 2).T
    links = coo_array((np.ones(len(pairs)), (ends[0], ends[1])), shape=(len(costs), len(costs)))
    return connected_components(links, directed=False)[1]


def _merge(values: Sequence[Sequence[float]], member_I: np.ndarray) -> list[np.ndarray]:
    """The sums over items that agree, for each option."""
    merged: list[np.ndarray] = [np.zeros(0)] * (int(member_I.max()) + 1)
    for options, member in zip(values, member_I, strict=True):
        found = merged[member]
        merged[member] = np.asarray(options, float) + (found if len(found) else 0.0)
    return merged


def _scaled(values: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
    """All options in a row, each item's least at zero and the sum of each item's largest at `SCALE`; and the factor."""
    shifted = [options - options.min() for options in values]
    total = sum(float(options.max()) for options in shifted)
    factor = SCALE / total if total > 0 else 1.0
    return np.concatenate(shifted) * factor, factor


def _one_each(values: Sequence[np.ndarray]) -> csr_array:
    rows = np.repeat(np.arange(len(values)), [len(options) for options in values])
    return coo_array((np.ones(len(rows)), (rows, np.arange(len(rows))))).tocsr()


def _solve(objective: np.ndarray, constraints: list[LinearConstraint]) -> np.ndarray:
    """The zeros and ones that minimise the objective."""
    found = milp(
        objective,
        integrality=np.ones(len(objective)),
        bounds=Bounds(0, 1),
        constraints=constraints,
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        raise RuntimeError(f"the solver found no allocation: {found.message}")
    return np.round(found.x)


def _option(chosen: np.ndarray, values: Sequence[np.ndarray], member: int) -> int:
    start = sum(len(options) for options in values[:member])
    return int(chosen[start : start + len(values[member])].argmax())
