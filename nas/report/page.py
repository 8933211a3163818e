"""The page: sections in order, each a chart, a table or a sentence that says why there is none."""

import platform
from collections.abc import Sequence
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io
import plotly.offline

from nas.fidelity.ranking import other_rows, ranking_table
from nas.report import figures
from nas.report.diagram import colours_of, diagram, legend
from nas.report.inputs import Inputs, read_inputs
from nas.report.labels import QUANTITIES, SEARCHED_AS, count_precisions, label, number, values_of, with_unit
from nas.report.sensitivity import sensitivity_figure
from nas.report.style import CSS, SCRIPT
from nas.results import STUDY, beside, best_values, front, replace_text
from search_spaces.precision import PRECISIONS

BAND_PCT = 10.0
"""Predicted latencies should be this close to the measured ones."""


def write_report(run: str | Path, *, study: str = STUDY) -> Path:
    """Write `report.html` in the run folder: one file that needs no network; what is missing is said in words.

    Raises:
        UserError, ProfileError: there is no such run or study, a file of it is damaged, or the disk is full.
    """
    inputs = read_inputs(run, study=study)
    path = beside(inputs.folder, study, "report.html")
    replace_text(path, render(inputs))
    return path


def render(inputs: Inputs) -> str:
    """The page as HTML."""
    page = _Page()
    parts = [_header(inputs)]
    if inputs.frame["state"].eq("complete").any():
        parts += [_front(inputs, page), _predictions(inputs, page), _progress(inputs, page)]
    else:
        parts.append(_section("Front", _missing("No candidate has been measured yet.")))
    parts += [_training(inputs, page), _fidelity(inputs, page), _sensitivity(inputs, page)]
    parts += [_table(inputs), _diagrams(inputs)]
    return page.wrap(_title(inputs), "".join(parts))


class _Page:
    """Collects charts while sections are written."""

    def __init__(self) -> None:
        self._charts: dict[str, go.Figure] = {}

    def chart(self, name: str, figure: go.Figure) -> str:
        self._charts[name] = figure
        return f'<div class="chart" id="{name}" style="height:{figure.layout.height}px"></div>'

    def wrap(self, title: str, body: str) -> str:
        charts = ",".join(f'"{name}":{plotly.io.to_json(figure)}' for name, figure in self._charts.items())
        scripts = ""
        if self._charts:
            data = f"{{{charts}}}".replace("</", "<\\/")
            library = f"<script>{plotly.offline.get_plotlyjs()}</script>"
            scripts = f'{library}<script type="application/json" id="charts">{data}</script><script>{SCRIPT}</script>'
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(title)}</title><style>{CSS}</style></head><body><main>{body}</main>{scripts}</body></html>\n"
        )


def _title(inputs: Inputs) -> str:
    space = (inputs.supernet or {}).get("space") or inputs.config.get("space") or inputs.folder.name
    hardware = f" on {inputs.profile.name}" if inputs.profile else ""
    return f"{space}{hardware}"


def _header(inputs: Inputs) -> str:
    frame = inputs.frame
    failed = int(frame["state"].eq("failed").sum())
    lead = f"{len(frame)} candidates evaluated" + (f", {failed} of them failed" if failed else "")
    unverified = f"; {inputs.unverified or 'nothing verified yet'}."
    lead += ", the front measured on its exported files." if inputs.verified else unverified
    cards = "".join(
        f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in _key_figures(inputs)
    )
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>" for name, value in _facts(inputs))
    head = f'<h1>{escape(_title(inputs))}</h1><p class="lead">{escape(lead)}</p>'
    return f'{head}<div class="figures">{cards}</div>{_section("Run", f"<dl>{facts}</dl>")}'


def _key_figures(inputs: Inputs) -> list[tuple[str, str]]:
    members = front(inputs.frame)
    models = [
        count_precisions({b["name"]: b["precision"] for b in m["blocks"]}, fp32=True) for m in inputs.models.values()
    ]
    mixed = f", {sum(',' in counts for counts in models)} of mixed precision" if models else ""
    cards = [(f"models on the front{mixed}", str(len(members)))]
    if members.empty:
        return cards
    kind = "measured" if inputs.verified else "searched"
    if "latency_ms" in members:
        values = best_values(members, "latency_ms")
        span = f"{number(values.min(), 'latency_ms')} – {with_unit(values.max(), 'latency_ms')}"
        cards.append((f"latency, {kind}", span))
    if "error_pct" in members:
        best = with_unit(best_values(members, "error_pct").min(), "error_pct")
        cards.append((f"lowest error, validation split, {kind}", best))
    if members["test_error_pct"].notna().any():
        cards.append(("lowest test error", with_unit(members["test_error_pct"].min(), "error_pct")))
    if (error := _mean_error(inputs.frame, "latency_ms", relative=True)) is not None:
        cards.append(("mean error of predicted latency", f"{error:.1f} %"))
    return cards


def _facts(inputs: Inputs) -> list[tuple[str, str]]:
    profile, supernet, config = inputs.profile, inputs.supernet or {}, inputs.config
    facts = [
        ("search space", escape(_space(inputs))),
        ("data set", escape(str(config["data"])) if "data" in config else ""),
    ]
    if profile is not None:
        device = profile.device
        flags = f" ({', '.join(device.flags)})" if device.flags else ""
        facts.append(
            ("device", escape(f"{device.processor}{flags}, {device.num_cores} cores, {device.memory_gb:g} GB"))
        )
        setting = (
            f"{profile.runtime} {profile.runtime_version}, threads: {profile.num_threads}, batch: {profile.batch_size}"
        )
        facts += [("system", escape(device.platform)), ("target", escape(setting)), ("profiled", escape(profile.date))]
    else:
        facts.append(("device", "no profile in this run yet"))
    objectives = ", ".join(o.name + (" (higher is better)" if o.maximize else "") for o in inputs.objectives)
    facts.append(("objectives", escape(objectives)))
    facts.append(("constraints", escape(", ".join(map(str, inputs.constraints)))))
    facts.append(("verified", escape(str((inputs.verified or {}).get("date", inputs.unverified)))))
    versions = {"python": platform.python_version(), **_own_version(), **dict(supernet.get("versions", {}))}
    facts.append(("versions", escape(", ".join(f"{name} {value}" for name, value in versions.items()))))
    command = "nas search --config config.yaml" if config else ""
    facts.append(("command", f"<code>{escape(command)}</code>" if command else ""))
    return [(name, value) for name, value in facts if value]


def _space(inputs: Inputs) -> str:
    supernet = inputs.supernet or {}
    name = supernet.get("space") or inputs.config.get("space") or ""
    classes = f", {supernet['num_classes']} classes" if "num_classes" in supernet else ""
    return f"{name}{classes}"


def _own_version() -> dict[str, str]:
    try:
        return {"hybridnas": version("hybridnas")}
    except PackageNotFoundError:  # used from a checkout that isn't installed
        return {}


_UNMEASURED = "no exported file has been measured yet"


def _front(inputs: Inputs, page: _Page) -> str:
    x, y, _ = figures.axes_of(inputs.frame, inputs.objectives)
    text = (
        f"{label(y).capitalize()} against {label(x)}; both are better when lower. " if y.endswith("error_pct") else ""
    )
    names = ", ".join(label(o.name) for o in inputs.objectives)
    text += (
        f"A member of the front is beaten by no other candidate in all of {names}, so some lie above the lower edge."
    )
    reason = f"its files are {inputs.unverified}, run nas verify there" if inputs.unverified else _UNMEASURED
    note = "" if inputs.verified else _missing(f"The front is by searched values: {reason}.")
    chart = page.chart("front", figures.front_figure(inputs.frame, inputs.objectives))
    return _section("Front", f"<p>{escape(text)} Hover over a point for its architecture.</p>{note}{chart}")


def _predictions(inputs: Inputs, page: _Page) -> str:
    frame, sections = inputs.frame, []
    for name, band in (("latency_ms", BAND_PCT), ("error_pct", None)):
        title = f"{QUANTITIES[name].title.capitalize()}: {SEARCHED_AS[name]} against measured"
        if name not in frame or (error := _mean_error(frame, name, relative=band is not None)) is None:
            sections.append(_section(title, _missing("No exported file has been measured yet.")))
            continue
        count = int(frame[f"measured_{name}"].notna().sum())
        shown = f"{error:.1f} % of the measured value" if band else f"{error:.2f} percentage points"
        source = "from the profile" if band else "of the validation split in torch"
        text = f"Mean absolute error {shown} over {count} exported files; {SEARCHED_AS[name]} values are {source}."
        chart = page.chart(f"predicted-{name.split('_')[0]}", figures.prediction_figure(frame, name, band_pct=band))
        sections.append(_section(title, f"<p>{text}</p>{chart}"))
    return f'<div class="pair">{"".join(sections)}</div>'


def _mean_error(frame: pd.DataFrame, name: str, *, relative: bool) -> float | None:
    """Mean absolute difference between searched and measured values, in percent of these if `relative`."""
    if name not in frame:
        return None
    rows = frame[frame[f"measured_{name}"].notna() & frame[name].notna()]
    if rows.empty:
        return None
    measured = rows[f"measured_{name}"].to_numpy(float)
    error = np.abs(rows[name].to_numpy(float) - measured)
    return float(np.mean(100 * error / measured if relative else error))


def _progress(inputs: Inputs, page: _Page) -> str:
    frame = inputs.frame
    curve = page.chart("hypervolume", figures.hypervolume_figure(frame, inputs.objectives, inputs.constraints))
    text = (
        "How much of the box between the best and worst values seen the candidates so far dominate; higher is better."
    )
    expensive = [o.name for o in inputs.objectives if o.expensive]
    errors = {name: found for name in expensive if len(found := figures.predictor_errors(frame, name))}
    if not errors:
        note = _missing(
            "No batch has been predicted before it was measured, so there is no error of a predictor to show."
        )
        return _section("Search progress", f"<p>{text}</p>{curve}{note}")
    left = _section("Search progress", f"<p>{text}</p>{curve}")
    name, found = next(iter(errors.items()))
    what = QUANTITIES[name].title if name in QUANTITIES else name
    text = f"The {escape(what)} that the predictor expected of each batch against what came out; lower is better."
    right = _section("Predictor", f"<p>{text}</p>{page.chart('predictor', figures.predictor_figure(found, name))}")
    return f'<div class="pair">{left}{right}</div>'


def _training(inputs: Inputs, page: _Page) -> str:
    if inputs.supernet is None:
        return _section("Training", _missing("This run has no trained supernet."))
    supernet = inputs.supernet
    accuracy = supernet.get("accuracy") or {}
    rows = [(name, f"{values['validation_pct']:.2f}", f"{values['test_pct']:.2f}") for name, values in accuracy.items()]
    table = _rows(("network", "accuracy, validation %", "accuracy, test %"), rows, name_first=True) if rows else ""
    seconds = f"Trained in {supernet['seconds']:.0f} s. " if supernet.get("seconds") else ""
    text = (
        f"<p>{seconds}Loss: of the networks of each step, a mean since the point before. Accuracy: of some "
        "validation images, with the averaged weights.</p>"
    )
    history = supernet.get("history") or []
    chart = page.chart("training", figures.training_figure(history)) if history else _missing("No history was kept.")
    return _section("Training", f"{text}{chart}{table}")


def _fidelity(inputs: Inputs, page: _Page) -> str:
    """Nothing before `nas fidelity` has run, which no search needs."""
    if inputs.fidelity is None or inputs.fidelity_rows is None:
        return ""
    found, options = inputs.fidelity["figures"], inputs.fidelity["options"]
    num_seeds = inputs.fidelity.get("num_seeds_averaged", 1)
    seeds = "one seed" if num_seeds == 1 else f"mean of {num_seeds} seeds"
    text = (
        f"{inputs.fidelity['num_ranked']} sub-networks ranked by the accuracy they inherit from the supernet, against "
        f"training each alone for {options['epochs_alone']} epochs ({seeds}). Correlations are "
        "with that accuracy; 95% intervals by bootstrap, for accuracy without noise by simulation."
    )
    chart = page.chart("fidelity", figures.fidelity_figure(inputs.fidelity_rows))
    ranking = _rows(*ranking_table(found), name_first=True)
    others = _rows(("figure", "value"), other_rows(found), name_first=True)
    return _section("Fidelity", f"<p>{escape(text)}</p>{chart}{ranking}{others}")


def _sensitivity(inputs: Inputs, page: _Page) -> str:
    """A chart an architecture; nothing before `nas sensitivity` has run, which no search needs."""
    if inputs.sensitivity.empty:
        return ""
    text = (
        "One block quantized at a time, all others fp32. Left the damage: how far the class probabilities move from "
        "those of fp32 (mean Kullback-Leibler divergence on validation images; lower is better). Right what the "
        "block's own latency gains; below zero the precision is slower."
    )
    charts = []
    for place, (name, rows) in enumerate(inputs.sensitivity.groupby("architecture", sort=False)):
        title = f"model #{name}" if str(name).isdecimal() else str(name)
        chart = page.chart(f"sensitivity-{place}", sensitivity_figure(rows))
        charts.append(f"<h3>{escape(title)}</h3>{chart}")
    return _section("Sensitivity", f"<p>{escape(text)}</p>{''.join(charts)}")


def _table(inputs: Inputs) -> str:
    members = front(inputs.frame)
    if members.empty:
        return _section("Models", _missing("No model is on the front yet."))
    objectives = [o.name for o in inputs.objectives]
    usual = [name for name in QUANTITIES if name not in ("entropy", "effectiveness")]
    names = [name for name in (*usual, *objectives) if name in members]
    columns: dict[str, list[str]] = {"#": [str(index) for index in members["index"]]}
    for name in dict.fromkeys(names):
        measured = f"measured_{name}"
        if measured in members and members[measured].notna().any():
            columns[f"{label(name)}|measured"] = [number(value, name) for value in members[measured]]
        if name != "size_bytes" and (finetuned := f"finetuned_{name}") in members and members[finetuned].notna().any():
            columns[f"{label(name)}|finetuned"] = [number(value, name) for value in members[finetuned]]
        columns[f"{label(name)}|{SEARCHED_AS.get(name, 'computed')}"] = [number(value, name) for value in members[name]]
    if members["test_error_pct"].notna().any():
        columns["test error (%)"] = [number(value, "error_pct") for value in members["test_error_pct"]]
        if members["finetuned_test_error_pct"].notna().any():
            values = members["finetuned_test_error_pct"]
            columns["test error (%)|finetuned"] = [number(value, "error_pct") for value in values]
        columns["agreement (%)|with torch"] = [number(value, "error_pct") for value in members["agreement_pct"]]
    columns[f"blocks|{' · '.join(PRECISIONS)}"] = [_precisions(inputs, row) for _, row in members.iterrows()]
    rows = list(zip(*columns.values(), strict=True))
    return _section("Models", f'<div class="wide">{_rows(tuple(columns), rows)}</div>')


def _precisions(inputs: Inputs, row: pd.Series) -> str:
    """How many blocks have each precision: `7 · 6 · 3`; a dash before the model is exported."""
    if (model := inputs.models.get(int(row["index"]))) is None:
        return "–"
    used = [block["precision"] for block in model["blocks"]]
    return " · ".join(str(used.count(precision)) for precision in PRECISIONS)


def _diagrams(inputs: Inputs) -> str:
    if not inputs.models:
        return _section("Block diagrams", _missing("No model has been exported yet."))
    blocks = {index: model["blocks"] for index, model in inputs.models.items()}
    colours = colours_of(str(block["kind"]) for members in blocks.values() for block in members)
    parts = []
    for _, row in front(inputs.frame).iterrows():
        if (index := int(row["index"])) not in blocks:
            continue
        values = list(values_of(row).values())[:3]
        heading = f"<h3>#{index}<small>{escape(' · '.join(values))}</small></h3>"
        parts.append(f'<div class="model">{heading}{diagram(blocks[index], colours)}</div>')
    text = "Blocks from input to output, with the channels and the picture size they read. Between blocks all is fp32."
    return _section("Block diagrams", f"<p>{text}</p>{legend(colours)}{''.join(parts)}")


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]], *, name_first: bool = False) -> str:
    cells = []
    for title in head:
        name, _, below = title.partition("|")
        cells.append(f"<th>{escape(name)}{f'<small>{escape(below)}</small>' if below else ''}</th>")
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    kind = ' class="plain"' if name_first else ""
    return f"<table{kind}><thead><tr>{''.join(cells)}</tr></thead><tbody>{lines}</tbody></table>"


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _missing(sentence: str) -> str:
    return f'<p class="missing">{escape(sentence)}</p>'
