"""What the command line prints about results, spaces and hardware."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console, Group
from rich.table import Table

from hardware_profiles.device import describe_device
from hardware_profiles.profile import HardwareProfile, list_profiles
from hardware_profiles.runtimes import RUNTIMES
from nas.errors import UserError
from nas.fidelity.ranking import other_rows, ranking_table
from nas.results import compare_policies, front, objectives_of
from nas.run_folder import RunFolder
from nas.verify import SLOWER
from search_spaces import SPACES, Architecture, SearchSpace, get_space
from search_spaces.cost import network_cost

_FORMATS = {
    "error_pct": (1.0, "{:.2f}", "error %"),
    "estimated_error_pct": (1.0, "{:.2f}", "error %, estimated"),
    "latency_ms": (1.0, "{:.3f}", "ms"),
    "size_bytes": (1e3, "{:.0f}", "kB"),
}
_FORMATS |= {"macs": (1e6, "{:.2f}", "MMACs"), "params": (1e3, "{:.0f}", "k parameters")}
"""Column -> divisor, format, heading."""

NOISY_PCT = 5.0
"""A profile is called noisy where two halves of its measurements are further apart than this, median over blocks."""

_BUDGET = {
    "supernet_steps": "training steps of the supernet",
    "steps_a_sub_network": "training steps of the supernet a sub-network",
    "standalone_steps": "training steps of a network alone",
}


def results_table(frame: pd.DataFrame, *, everything: bool = False) -> Table:
    """The front, fastest first, or every candidate in order of evaluation: what the search saw, what was measured."""
    rows = frame if everything else front(frame)
    names = list(dict.fromkeys([*(o.name for o in objectives_of(frame)), "error_pct", "latency_ms", "macs", "params"]))
    names = [name for name in names if name in frame]
    measured = [name for name in ("error_pct", "latency_ms", "size_bytes") if frame[f"measured_{name}"].notna().any()]
    finetuned = [name for name in measured if name != "size_bytes" and frame[f"finetuned_{name}"].notna().any()]
    note = next((text for text in rows["front_reason"][rows["on_front"]] if text), "not verified")
    searched = "Pareto front" if measured else f"Pareto front (searched, {note})"
    title = "All candidates" if everything else searched
    table = Table(title=title, title_justify="left")
    table.add_column("model", justify="right")
    for name in names:
        table.add_column(_heading(name), justify="right")
    for name in measured:
        table.add_column(f"measured {_heading(name)}", justify="right")
    if measured:
        table.add_column("test error %", justify="right")
    for name in finetuned:
        table.add_column(f"finetuned {_heading(name)}", justify="right")
    if finetuned:
        table.add_column("finetuned test error %", justify="right")
    table.add_column("precisions")
    if everything:
        table.add_column("remark")
    for _, row in rows.iterrows():
        cells = [str(row["index"]), *(_cell(name, row[name]) for name in names)]
        cells += [_cell(name, row[f"measured_{name}"]) for name in measured]
        cells += [_cell("error_pct", row["test_error_pct"])] if measured else []
        cells += [_cell(name, row[f"finetuned_{name}"]) for name in finetuned]
        cells += [_cell("error_pct", row["finetuned_test_error_pct"])] if finetuned else []
        cells.append(_precisions(row))
        if everything:
            remarks = ["on the front"] * bool(row["on_front"]) + [str(row["reason"] or row["front_reason"])]
            cells.append(", ".join(filter(None, remarks)))
        table.add_row(*cells)
    return table


def policies_table(frame: pd.DataFrame) -> Table:
    """What `compare_policies` found, measured on the exported files."""
    table = Table("policy", "model", "ms", "spread %", "kB", "error %", "test error %")
    table.title, table.title_justify = "One architecture, four policies (measured)", "left"
    for column in table.columns[1:]:
        column.justify = "right"
    for _, row in frame.iterrows():
        names = ("latency_ms", "latency_spread_pct", "size_bytes", "error_pct")
        cells = [_cell(name, row[f"measured_{name}"]) for name in names]
        table.add_row(row["policy"], str(row["index"]), *cells, _cell("error_pct", row["test_error_pct"]))
    return table


def fidelity_tables(content: Mapping[str, Any]) -> Group:
    """The figures of `fidelity.json`: correlations with stand-alone accuracy, then gaps and budget."""
    figures = content["figures"]
    headings, rows = ranking_table(figures)
    ranking = Table(*headings)
    ranking.title = f"Fidelity: {content['num_ranked']} architectures ranked, {content['num_trainings']} trained alone"
    for row in rows:
        ranking.add_row(*row)
    others = Table("figure", "value")
    for figure in other_rows(figures):
        others.add_row(*figure)
    for name, title in _BUDGET.items():
        value = content["budget"][name]
        others.add_row(title, "–" if value is None else f"{value:,.0f}" if value >= 1 else f"{value:.1e}")
    for table in (ranking, others):
        table.title_justify = "left"
        for column in table.columns[1:]:
            column.justify = "right"
    return Group(ranking, others)


def sensitivity_table(frame: pd.DataFrame) -> Table:
    """One architecture's rows of `sensitivity.csv`, without those of fp32."""
    table = Table("block", "precision", "divergence", "error %, change", "ms gained", "kB gained")
    table.title = f"One block quantized at a time: {frame['architecture'].iloc[0]}"
    table.title_justify = "left"
    for column in table.columns[2:]:
        column.justify = "right"
    for _, row in frame[frame["precision"] != "fp32"].iterrows():
        cells = [f"{row['divergence']:.2e}", f"{row['error_change']:+.2f}", f"{row['latency_gain_ms']:+.4f}"]
        table.add_row(row["block"], row["precision"], *cells, f"{row['size_gain_bytes'] / 1e3:+.1f}")
    return table


def design_table(costs: Mapping[str, float]) -> Table:
    """What is known of a designed architecture (`nas.design`)."""
    shown = {
        "entropy": ("entropy, nats (higher is better)", 1.0, "{:.0f}"),
        "effectiveness": ("effectiveness, depth over width", 1.0, "{:.3f}"),
        "macs": ("MMACs", 1e6, "{:.3f}"),
        "params": ("parameters", 1.0, "{:,.0f}"),
        "predicted_latency_ms": ("predicted ms, fp32", 1.0, "{:.3f}"),
        "predicted_fastest_latency_ms": ("predicted ms, fastest precisions", 1.0, "{:.3f}"),
    }
    table = Table("quantity", "value")
    table.columns[1].justify = "right"
    for name, value in costs.items():
        title, divisor, form = shown[name]
        table.add_row(title, form.format(value / divisor))
    return table


def genes_table(space: SearchSpace, architecture: Architecture) -> Table:
    """The genes of an architecture, without those that change nothing."""
    table = Table("gene", "value", title=f"Architecture of {space.name}", title_justify="left")
    for choice in space.active_choices(architecture):
        table.add_row(choice.name, str(architecture.genotype[choice.name]))
    return table


def space_table(space: SearchSpace) -> Table:
    """The genes of a space."""
    table = Table("gene", "values", title=f"{space.name}: {len(space.choices)} genes", title_justify="left")
    for choice in space.choices:
        table.add_row(choice.name, " ".join(map(str, choice.values)))
    return table


def extremes_table(space: SearchSpace) -> Table:
    """MACs and parameters of the smallest and largest network."""
    table = Table("network", "MMACs", "parameters", "fp32 peak activations kB")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, architecture in (("smallest", space.smallest()), ("largest", space.largest())):
        cost = network_cost(space.blocks(architecture))
        table.add_row(name, f"{cost.macs / 1e6:.2f}", f"{cost.num_params:,}", f"{cost.peak_activation_bytes / 1e3:.0f}")
    return table


def profiles_table(profiles: Sequence[HardwareProfile]) -> Table:
    """Shipped profiles, with how far their predictions were off on networks held out."""
    headings = ("hardware", "processor", "space", "runtime", "threads", "batch", "mean error", "Kendall", "date")
    table = Table(*headings, title="Shipped profiles")
    table.title_justify = "left"
    for p in profiles:
        runtime, accuracy = f"{p.runtime} {p.runtime_version}", p.held_out.get("all")
        error, kendall = (f"{accuracy['mape_pct']:.1f}%", f"{accuracy['kendall']:.2f}") if accuracy else ("", "")
        target = (runtime, str(p.num_threads), str(p.batch_size))
        table.add_row(p.name, p.device.processor, p.space, *target, error, kendall, p.date[:10])
    return table


def print_results(run: RunFolder, frame: pd.DataFrame, console: Console) -> None:
    """The last things a run prints: the front and where everything is."""
    console.print(results_table(frame))
    policies = compare_policies(run.folder, study=run.study_path.name)
    if not policies.empty:
        console.print(policies_table(policies))
    if run.finetuned_path.is_dir():
        print(f"finetuned models: {run.finetuned_path}")
    print(f"models: {run.models_path}\ntable:  {run.csv_path}\nreport: {run.report_path}")


def print_spaces() -> None:
    """The search spaces there are."""
    for name in SPACES:
        space = get_space(name)
        print(f"{name}: {space.image_size}x{space.image_size} images, {len(space.choices)} genes")


def print_space(name: str, console: Console) -> None:
    """Genes of a search space, number of architectures, smallest and largest network."""
    space = get_space(name)
    console.print(space_table(space))
    print(f"{space.num_architectures()} distinct architectures ({space.num_architectures():.3g})")
    console.print(extremes_table(space))


def print_hardware(console: Console) -> None:
    """This machine, the runtimes there are, and the shipped profiles."""
    device = describe_device()
    print(f"local: {device.processor}, {device.num_cores} cores, {device.memory_gb:.0f} GB, {device.platform}")
    print(f"       instruction sets: {', '.join(device.flags) or 'unknown'}; runtimes: {', '.join(RUNTIMES)}")
    profiles = list_profiles()
    if profiles:
        console.print(profiles_table(profiles))
    else:
        print("No profiles are shipped yet; `nas profile` measures this machine.")


def _heading(name: str) -> str:
    return _FORMATS[name][2] if name in _FORMATS else name


def _cell(name: str, value: float) -> str:
    divisor, form, _ = _FORMATS.get(name, (1.0, "{:.4g}", name))
    return "" if math.isnan(value) else form.format(value / divisor)


def _precisions(row: pd.Series) -> str:
    """How many places have which precision; inactive places count as fp32 in a genotype and are left out."""
    counts: dict[str, int] = {}
    for name, value in row.items():
        if str(name).startswith("precision.") and value != "fp32":
            counts[str(value)] = counts.get(str(value), 0) + 1
    return ", ".join(f"{count} {precision}" for precision, count in sorted(counts.items())) or "fp32"


def describe_profile(profile: HardwareProfile) -> str:
    """What the profile is of, how far its predictions were off, and a warning where it is of little use."""
    where = f"{profile.runtime} {profile.runtime_version}" + (
        f" on {profile.runtime_device}" * bool(profile.runtime_device)
    )
    num_predicted = sum(not row.measured for row in profile.rows)
    lines = [
        f"profile: {profile.device.processor}, {where}, threads {profile.num_threads}, batch {profile.batch_size}, "
        f"{len(profile.rows)} rows"
        + f", {num_predicted} of them predicted" * bool(num_predicted)
        + f" in {', '.join(profile.precisions)}, {profile.date[:10]}"
    ]
    for group, values in profile.held_out.items():
        lines.append(
            f"  held-out networks, {group}: mean error {values['mape_pct']:.1f}%, {values['within_10pct']:.0f}% within "
            f"10%, Spearman {values['spearman']:.3f}, Kendall {values['kendall']:.3f}"
        )
    spread_pct = np.median([row.spread_pct for row in profile.rows if row.measured] or [0.0])
    if spread_pct > NOISY_PCT:
        lines.append(
            f"  warning: two halves of the measurements differ by {spread_pct:.0f}% (median of blocks); stop what else "
            "runs on the device, or give a larger --budget"
        )
    return "\n".join(lines)


def describe_verified(frame: pd.DataFrame) -> str:
    """How far the files that were measured are from what was predicted, and a warning where all are slower."""
    rows = frame[frame["measured_latency_ms"].notna()]
    if rows.empty:
        return ""
    ratios = rows["measured_latency_ms"] / rows["latency_ms"]
    line = (
        f"verify: {len(rows)} models measured, latency {ratios.median():.2f} times the predicted "
        f"({ratios.min():.2f} to {ratios.max():.2f}), at least {rows['agreement_pct'].min():.2f}% of classes as torch's"
    )
    if ratios.min() <= SLOWER:
        return line
    return (
        f"{line}\n  warning: all are slower than predicted; the machine is busier than when it was profiled, or the "
        "profile is of another one: stop what else runs and give --redo verify, or profile it anew"
    )


def describe_supernet(folder: Path) -> str:
    """One line, from `supernet.json`."""
    path = folder / "supernet.json"
    try:
        accuracy = json.loads(path.read_text(encoding="utf-8"))["accuracy"]
        parts = [f"{name} {values['test_pct']:.1f}%" for name, values in accuracy.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is missing or damaged; --redo train makes it again") from None
    return "supernet: test accuracy of " + ", ".join(parts)
