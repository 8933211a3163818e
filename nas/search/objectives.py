"""What a search optimises, and the limits it keeps: objectives and constraints."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from nas.errors import UserError
from search_spaces.errors import unknown_name

_CONSTRAINT = re.compile(r"\s*(?P<name>[A-Za-z_]\w*)\s*(?P<op><=|>=)\s*(?P<bound>[-+.\w]+)\s*")


@dataclass(frozen=True, slots=True)
class Objective:
    """A number to make small, or large where `maximize` is set."""

    name: str
    """Key of the value in what an evaluation gives, and column of the study; ends in its unit, such as `latency_ms`."""
    unit: str = field(default="", kw_only=True)
    """For display only."""
    maximize: bool = field(default=False, kw_only=True)
    expensive: bool = field(default=True, kw_only=True)
    """Measured candidate by candidate and predicted in between; a cheap one is computed for any candidate at once."""

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "unit": self.unit, "maximize": self.maximize, "expensive": self.expensive}


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """A bound that every member of a front keeps, such as `latency_ms<=2.5`."""

    objective: str
    op: Literal["<=", ">="]
    bound: float

    def violation(self, values: Any) -> np.ndarray:
        """How far `values` (any shape) miss the bound, as a share of it; zero or negative where the bound is kept."""
        excess = np.asarray(values, float) - self.bound
        return (excess if self.op == "<=" else -excess) / (abs(self.bound) or 1.0)

    def __str__(self) -> str:
        return f"{self.objective}{self.op}{self.bound:g}"


def parse_constraint(text: str, names: Iterable[str] | None = None) -> Constraint:
    """Read `latency_ms<=2.5`; where `names` are given, the quantity must be one of them.

    Raises `UserError` when the text has another form or names something unknown.
    """
    match = _CONSTRAINT.fullmatch(text)
    bound = _number(match["bound"]) if match else None
    if match is None or bound is None:
        raise UserError(f"constraint {text!r} must be a name, <= or >=, and a number, such as latency_ms<=2.5")
    if names is not None:
        check_name(match["name"], names, kind="objective")
    return Constraint(objective=match["name"], op="<=" if match["op"] == "<=" else ">=", bound=bound)


def check_name(name: str, names: Iterable[str], *, kind: str) -> None:
    """Raise `UserError` unless `name` is one of `names`."""
    available = list(names)
    if name not in available:
        raise UserError(unknown_name(kind, name, available))


def as_costs(values: Mapping[str, Any] | pd.DataFrame, objectives: Sequence[Objective]) -> np.ndarray:
    """Columns of `values` (each N numbers) as N x len(objectives) numbers that are all better when lower."""
    columns = [np.asarray(values[o.name], float) * (-1.0 if o.maximize else 1.0) for o in objectives]
    return np.stack(columns, axis=-1)


def violations(values: Mapping[str, Any] | pd.DataFrame, constraints: Sequence[Constraint]) -> np.ndarray:
    """N x len(constraints) violations of the columns of `values` (each N numbers)."""
    if not constraints:
        return np.zeros((len(next(iter(dict(values).values()))), 0))
    return np.stack([c.violation(values[c.objective]) for c in constraints], axis=-1)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None
