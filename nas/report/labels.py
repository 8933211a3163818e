"""How a report words quantities and candidates."""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from search_spaces.precision import PRECISIONS, PREFIX


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A column and how it is shown."""

    title: str
    unit: str
    divisor: float = 1.0
    """From the column's unit to the one that is shown."""


QUANTITIES = {
    "latency_ms": Quantity(title="latency", unit="ms"),
    "error_pct": Quantity(title="error", unit="%"),
    "estimated_error_pct": Quantity(title="estimated error", unit="%"),
    "size_bytes": Quantity(title="size", unit="kB", divisor=1e3),
    "cross_entropy": Quantity(title="cross-entropy", unit="nats"),
    "macs": Quantity(title="MACs", unit="M", divisor=1e6),
    "params": Quantity(title="parameters", unit="k", divisor=1e3),
    "entropy": Quantity(title="entropy", unit="nats"),
    "effectiveness": Quantity(title="depth over width", unit=""),
}

SEARCHED_AS = {
    "latency_ms": "predicted",
    **dict.fromkeys(("error_pct", "estimated_error_pct", "cross_entropy"), "simulated"),
}
"""What the search's own value of a quantity is, where files are measured too; others are computed."""


def label(name: str) -> str:
    """Axis title of a column: `latency (ms)`; the column's name where it is none of `QUANTITIES`."""
    quantity = QUANTITIES.get(name)
    if quantity is None:
        return name
    return f"{quantity.title} ({quantity.unit})" if quantity.unit else quantity.title


def number(value: float, name: str) -> str:
    """A value with three or four digits, without unit; a dash where it is missing."""
    if not math.isfinite(value):
        return "–"
    shown = value / (QUANTITIES[name].divisor if name in QUANTITIES else 1.0)
    if name.endswith("_pct"):
        return f"{shown:.2f}"
    if abs(shown) >= 100 or shown == 0:
        return f"{shown:,.0f}"
    return f"{shown:#.3g}"


def with_unit(value: float, name: str) -> str:
    """`1.23 ms`, as `number` with its unit."""
    unit = QUANTITIES[name].unit if name in QUANTITIES else ""
    return f"{number(value, name)} {unit}".rstrip()


def values_of(row: pd.Series) -> dict[str, str]:
    """The quantities of a candidate with their units: measured on the latest file there is, else as searched."""
    shown = {}
    for name in (name for name in QUANTITIES if name in row.index):
        known = [float(row.get(column, math.nan)) for column in (f"finetuned_{name}", f"measured_{name}", name)]
        shown[name] = with_unit(next((value for value in known if not math.isnan(value)), math.nan), name)
    return shown


def describe_candidate(row: pd.Series) -> str:
    """A candidate in lines for a chart's hover: its number, values, widths and depths, precisions."""
    values = [f"{QUANTITIES[name].title} {value}" for name, value in values_of(row).items()]
    genes = {str(key): row[key] for key in row.index if "." in str(key) and not str(key).startswith(PREFIX)}
    widths = " · ".join(str(value) for name, value in genes.items() if name.endswith(".width"))
    depths = " · ".join(str(value) for name, value in genes.items() if name.endswith(".depth"))
    lines = [f"<b>#{row['index']}</b>", *values]
    lines += [f"widths {widths}, depths {depths}"] if widths else _few(genes)
    counts = count_precisions({str(k): row[k] for k in row.index if str(k).startswith(PREFIX)})
    return "<br>".join([*lines, f"quantized blocks: {counts or 'none'}"])


def count_precisions(precisions: dict[str, Any], *, fp32: bool = False) -> str:
    """`4 int8, 2 int8-dynamic`: how many places have which precision, "" for none; `fp32` counts that one too."""
    values = list(precisions.values())
    shown = [p for p in PRECISIONS if (fp32 or p != "fp32") and p in values]
    return ", ".join(f"{values.count(p)} {p}" for p in shown)


def _few(genes: dict[str, Any], limit: int = 8) -> list[str]:
    lines = [f"{name} {value}" for name, value in list(genes.items())[:limit]]
    return lines + ([f"and {len(genes) - limit} more genes"] if len(genes) > limit else [])
