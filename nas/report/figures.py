"""The charts of a report, as plotly figures without colours of text and grid, which the page adds to fit its theme."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from nas.fidelity.ranking import mean_over_seeds
from nas.report.labels import QUANTITIES, SEARCHED_AS, describe_candidate, label
from nas.results import LEFT_OUT, best_values, front
from nas.search.objectives import Constraint, Objective, as_costs, violations
from nas.search.pareto import hypervolume

BLUE, ORANGE, GREY = "#3b82c4", "#e07b39", "#9aa3ad"
SCALE = "Viridis"
MAX_CHECKPOINTS = 200
LOG_RATIO = 6.0
"""An axis is logarithmic when its largest value is this many times the smallest."""


def axes_of(frame: pd.DataFrame, objectives: Sequence[Objective]) -> tuple[str, str, str | None]:
    """What to draw along x and y and as colour: latency, error and size where the run has them."""
    names = [o.name for o in objectives]
    y = next((name for name in names if name.endswith("error_pct")), names[0])
    x = next(name for name in ("latency_ms", "macs", *names) if name in frame and name != y)
    colour = next(
        (name for name in ("size_bytes", "macs", "params", *names) if name in frame and name not in (x, y)), None
    )
    return x, y, colour


def front_figure(frame: pd.DataFrame, objectives: Sequence[Objective]) -> go.Figure:
    """All candidates as searched, the front's members measured where that was done; a member's colour is its size."""
    x, y, colour = axes_of(frame, objectives)
    members, others = front(frame), frame[~frame["on_front"] & frame[y].notna()]
    left_out = others["front_reason"] == LEFT_OUT
    figure = go.Figure()
    for rows, name, marker in (
        (others[~left_out], "other candidates, as searched", {"color": GREY, "size": 6, "opacity": 0.55}),
        (others[left_out], "front, not exported, as searched", {"color": GREY, "size": 10, "symbol": "circle-open"}),
    ):
        figure.add_scatter(
            x=_scaled(rows[x], x),
            y=_scaled(rows[y], y),
            mode="markers",
            name=name,
            marker=marker,
            showlegend=len(rows) > 0,
            text=[describe_candidate(row) for _, row in rows.iterrows()],
            hovertemplate="%{text}<extra></extra>",
        )
    verified = bool(members["verified"].any())
    marker = {"size": 13, "line": {"width": 1.5, "color": "rgba(127,127,127,.6)"}, "color": BLUE}
    if colour is not None:
        bar = {"title": {"text": label(colour), "side": "right"}, "thickness": 10, "outlinewidth": 0, "len": 0.9}
        marker |= {"color": _scaled(best_values(members, colour), colour), "colorscale": SCALE, "colorbar": bar}
    figure.add_scatter(
        x=_scaled(best_values(members, x), x),
        y=_scaled(best_values(members, y), y),
        mode="markers",
        name="front, measured" if verified else "front, as searched",
        marker=marker,
        text=[describe_candidate(row) for _, row in members.iterrows()],
        hovertemplate="%{text}<extra></extra>",
    )
    shown = _scaled(frame[x], x)
    style_figure(figure, height=460)
    figure.update_xaxes(title_text=label(x), **_axis_type(shown))
    figure.update_yaxes(title_text=label(y))
    return figure


def prediction_figure(frame: pd.DataFrame, name: str, *, band_pct: float | None = None) -> go.Figure:
    """Values of `name` as searched against those measured on the files, with the diagonal and a band around it."""
    rows = frame[frame[f"measured_{name}"].notna() & frame[name].notna()]
    searched, measured = _scaled(rows[name], name), _scaled(rows[f"measured_{name}"], name)
    both = np.concatenate([searched, measured])
    margin = 0.06 * float(np.ptp(both)) or 0.06 * float(both.max()) or 1.0
    ends = np.array([max(both.min() - margin, 0.0), both.max() + margin])
    figure = go.Figure()
    if band_pct is not None:
        low, high = ends * (1 - band_pct / 100), ends * (1 + band_pct / 100)
        figure.add_scatter(
            x=[*ends, *ends[::-1]],
            y=[*low, *high[::-1]],
            mode="lines",
            fill="toself",
            fillcolor="rgba(59,130,196,.13)",
            line={"width": 0},
            name=f"within {band_pct:g}%",
            hoverinfo="skip",
        )
    line = {"color": GREY, "width": 1, "dash": "dot"}
    figure.add_scatter(x=ends, y=ends, mode="lines", line=line, name="equal", hoverinfo="skip")
    for on_front, colour, title in ((True, BLUE, "front"), (False, ORANGE, "fell out")):
        mask = rows["on_front"].to_numpy() == on_front
        if not mask.any():
            continue
        figure.add_scatter(
            x=searched[mask],
            y=measured[mask],
            mode="markers",
            name=title,
            marker={"size": 9, "color": colour},
            text=[f"#{index}" for index in rows["index"][mask]],
            hovertemplate="%{text}: " + SEARCHED_AS[name] + " %{x:.4g}, measured %{y:.4g}<extra></extra>",
        )
    style_figure(figure, height=380)
    figure.update_xaxes(title_text=f"{label(name)}, {SEARCHED_AS[name]}", range=ends.tolist())
    figure.update_yaxes(title_text="measured", range=ends.tolist())
    return figure


def hypervolume_figure(
    frame: pd.DataFrame, objectives: Sequence[Objective], constraints: Sequence[Constraint] = ()
) -> go.Figure:
    """Hypervolume over evaluations, in percent of the box from the best to the worst value seen in each objective."""
    evaluations, shares = hypervolume_curve(frame, objectives, constraints)
    figure = go.Figure()
    figure.add_scatter(
        x=evaluations, y=shares, mode="lines", line={"color": BLUE, "width": 2.5, "shape": "hv"}, showlegend=False
    )
    style_figure(figure, height=320)
    figure.update_xaxes(title_text="evaluations", rangemode="tozero")
    figure.update_yaxes(title_text="hypervolume (%)", rangemode="tozero")
    return figure


def hypervolume_curve(
    frame: pd.DataFrame, objectives: Sequence[Objective], constraints: Sequence[Constraint] = ()
) -> tuple[list[int], list[float]]:
    """Numbers of evaluations, and the hypervolume after each in percent; two empty lists when nothing is complete."""
    costs = as_costs(frame, objectives)
    complete = np.isfinite(costs).all(axis=1)
    if not complete.any():
        return [], []
    low, high = costs[complete].min(axis=0), costs[complete].max(axis=0)
    scaled = (costs - low) / np.where(high > low, high - low, 1.0)
    kept = complete & (violations(frame, constraints) <= 0).all(axis=1)
    ends = np.unique(np.linspace(1, len(frame), min(len(frame), MAX_CHECKPOINTS)).round().astype(int))
    reference = np.full(len(objectives), 1.0 + 1e-9)
    return ends.tolist(), [100 * hypervolume(scaled[:end][kept[:end]], reference) for end in ends]


def predictor_errors(frame: pd.DataFrame, name: str) -> pd.Series:
    """Mean absolute difference of `name` before and after measuring, by batch; empty when nothing was predicted."""
    if (predicted := f"predicted_{name}") not in frame:
        return pd.Series(dtype=float)
    return (frame[predicted] - frame[name]).abs().groupby(frame["batch"]).mean().dropna()


def predictor_figure(errors: pd.Series, name: str) -> go.Figure:
    """Errors from `predictor_errors`."""
    figure = go.Figure()
    figure.add_scatter(
        x=errors.index,
        y=_scaled(errors, name),
        mode="lines+markers",
        line={"color": ORANGE, "width": 2},
        showlegend=False,
    )
    style_figure(figure, height=320)
    figure.update_xaxes(title_text="batch", dtick=max(1, len(errors) // 10))
    unit = QUANTITIES[name].unit if name in QUANTITIES else ""
    figure.update_yaxes(title_text="mean absolute error" + (f" ({unit})" if unit else ""), rangemode="tozero")
    return figure


def training_figure(history: Sequence[Mapping[str, float]]) -> go.Figure:
    """Above the loss, each point the mean since the one before; below the accuracy of watched networks, if any."""
    watched = [name for name in ("smallest", "middle", "largest") if any(f"{name}_pct" in row for row in history)]
    num_rows = 2 if watched else 1
    figure = make_subplots(rows=num_rows, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    steps, losses = ([float(entry[name]) for entry in history] for name in ("step", "loss"))
    line = {"color": GREY, "width": 2}
    figure.add_scatter(x=steps, y=losses, mode="lines", line=line, name="loss", row=1, col=1)
    for name, shade in zip(watched, sample_colorscale(SCALE, np.linspace(0.1, 0.9, 3)), strict=False):
        rows = [row for row in history if f"{name}_pct" in row]
        figure.add_scatter(
            x=[row["step"] for row in rows],
            y=[row[f"{name}_pct"] for row in rows],
            mode="lines+markers",
            line={"color": shade, "width": 2},
            name=name,
            row=2,
            col=1,
        )
    style_figure(figure, height=300 + 220 * (num_rows - 1))
    figure.update_layout(showlegend=bool(watched))
    figure.update_xaxes(title_text="step", row=num_rows, col=1)
    figure.update_yaxes(title_text="training loss", row=1, col=1)
    if watched:
        figure.update_yaxes(title_text="accuracy (%)", row=2, col=1)
    return figure


def fidelity_figure(rows: pd.DataFrame) -> go.Figure:
    """Stand-alone test accuracy, mean over seeds, against the inherited one, a colour a band, with the diagonal."""
    rows = mean_over_seeds(rows.dropna(subset=["standalone_test_pct", "inherited_test_pct"]))
    both = rows[["standalone_test_pct", "inherited_test_pct"]].to_numpy(float)
    margin = 0.06 * float(np.ptp(both)) or 1.0
    ends = [float(both.min()) - margin, float(both.max()) + margin]
    figure = go.Figure()
    line = {"color": GREY, "width": 1, "dash": "dot"}
    figure.add_scatter(x=ends, y=ends, mode="lines", line=line, name="equal", hoverinfo="skip")
    bands = np.unique(rows["band_mmacs"])  # NaN, if any, last
    shades = sample_colorscale(SCALE, np.linspace(0.1, 0.9, max(2, len(bands))))
    for band, shade in zip(bands, shades, strict=False):
        outside = np.isnan(band)
        members = rows[rows["band_mmacs"].isna() if outside else rows["band_mmacs"] == band]
        figure.add_scatter(
            x=members["inherited_test_pct"],
            y=members["standalone_test_pct"],
            mode="markers",
            name=("outside bands" if len(bands) > 1 else "architectures") if outside else f"{band:g} MMACs",
            marker={"size": 9, "color": GREY if outside and len(bands) > 1 else shade},
            text=[f"#{r['index']} {r['role']}, {r['macs'] / 1e6:.2f} MMACs" for _, r in members.iterrows()],
            hovertemplate="%{text}: inherited %{x:.2f}, alone %{y:.2f}<extra></extra>",
        )
    style_figure(figure, height=420)
    figure.update_xaxes(title_text="inherited test accuracy (%)")
    figure.update_yaxes(title_text="stand-alone test accuracy (%)")
    return figure


def _scaled(values: pd.Series, name: str) -> np.ndarray:
    return values.to_numpy(float) / QUANTITIES[name].divisor if name in QUANTITIES else values.to_numpy(float)


def _axis_type(values: np.ndarray) -> dict[str, object]:
    positive = values[np.isfinite(values) & (values > 0)]
    if len(positive) == 0 or positive.max() < LOG_RATIO * positive.min():
        return {"rangemode": "tozero"}
    decades = range(int(np.floor(np.log10(positive.min()))), int(np.ceil(np.log10(positive.max()))) + 1)
    ticks = [digit * 10.0**power for power in decades for digit in (1, 2, 5)]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def style_figure(figure: go.Figure, *, height: int) -> None:
    """What all charts share."""
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 64, "r": 16, "t": 36, "b": 56},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        hoverlabel={"align": "left"},
    )
    figure.update_xaxes(automargin=True, zeroline=False)
    figure.update_yaxes(automargin=True, zeroline=False)
