"""What a search optimises, the limits it keeps and where it looks: objectives, constraints and focus."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from nas.errors import UserError
from search_spaces.errors import unknown_name

_FOCUS = re.compile(r"\s*(?P<name>[A-Za-z_]\w*)\s*=\s*(?P<low>[-+\w.]*?)\.\.(?P<high>[-+\w.]*?)\s*")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Focus:
    """Where a front will be used, such as `latency_ms=1..2`: a search prefers that range, but forbids nothing."""

    objective: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise UserError(f"focus {self} must go from a lower to a higher value; swap or widen its ends")

    @property
    def limits(self) -> tuple[Constraint, Constraint]:
        """Both ends as constraints."""
        return (
            Constraint(objective=self.objective, op=">=", bound=self.low),
            Constraint(objective=self.objective, op="<=", bound=self.high),
        )

    def __str__(self) -> str:
        return f"{self.objective}={self.low:g}..{self.high:g}"


def parse_focus(text: str, names: Iterable[str] | None = None) -> Focus:
    """Read `latency_ms=1..2`; where `names` are given, the objective must be one of them.

    Raises `UserError` when the text has another form, the range is empty or the objective unknown.
    """
    match = _FOCUS.fullmatch(text)
    low, high = (_number(match[end]) for end in ("low", "high")) if match else (None, None)
    if match is None or low is None or high is None:
        raise UserError(f"focus {text!r} must be an objective, = and two numbers, such as latency_ms=1..2")
    if names is not None:
        check_name(match["name"], names, kind="objective")
    return Focus(objective=match["name"], low=low, high=high)


def focus_box(focus: Iterable[Focus], objectives: Sequence[Objective]) -> np.ndarray:
    """Lowest and highest cost (2 x len(objectives)) inside every focus; infinite where there is none."""
    box = np.array([[-np.inf], [np.inf]]).repeat(len(objectives), axis=1)
    for part in focus:
        column = next(i for i, o in enumerate(objectives) if o.name == part.objective)
        ends = sorted(as_costs({part.objective: [part.low, part.high]}, [objectives[column]])[:, 0])
        box[:, column] = max(box[0, column], ends[0]), min(box[1, column], ends[1])
    return box


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
