"""The chart of sensitivities: for each block the damage of its precisions, beside what they gain on the device."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from nas.report.figures import GREY, SCALE, style_figure

BAR_PX = 9


def sensitivity_figure(rows: pd.DataFrame) -> go.Figure:
    """One architecture's rows of `sensitivity.csv`: a line a block, first at the top, and a colour a precision."""
    blocks = list(dict.fromkeys(rows["block"]))
    precisions = [p for p in dict.fromkeys(rows["precision"]) if p != "fp32"]
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.04)
    shades = sample_colorscale(SCALE, np.linspace(0.15, 0.85, max(2, len(precisions))))
    for precision, shade in zip(precisions, shades, strict=False):
        found = rows[rows["precision"] == precision]
        shared = {"y": found["block"], "orientation": "h", "marker": {"color": shade}, "legendgroup": precision}
        hints = [f"{change:+.2f} points of error" for change in found["error_change"]]
        figure.add_bar(
            x=found["divergence"],
            name=precision,
            text=hints,
            textposition="none",
            hovertemplate="%{y}, " + precision + ": divergence %{x:.3g}, %{text}<extra></extra>",
            **shared,
            row=1,
            col=1,
        )
        figure.add_bar(
            x=1e3 * found["latency_gain_ms"],
            showlegend=False,
            hovertemplate="%{y}, " + precision + ": %{x:.3g} µs<extra></extra>",
            **shared,
            row=1,
            col=2,
        )
    style_figure(figure, height=110 + len(blocks) * (BAR_PX * len(precisions) + 8))
    figure.update_layout(bargap=0.25)
    figure.update_yaxes(categoryorder="array", categoryarray=blocks[::-1])
    figure.update_xaxes(title_text="divergence (nats)", rangemode="tozero", row=1, col=1)
    zero = {"zeroline": True, "zerolinecolor": GREY}
    figure.update_xaxes(title_text="latency gained (µs)", **zero, row=1, col=2)
    return figure
