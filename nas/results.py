"""The results of a run as a dataframe: what was searched, joined with what was measured on the exported files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nas.config import load_options
from nas.error_estimate import ErrorEstimate
from nas.errors import UserError
from nas.search.objectives import Objective, as_costs, check_name, parse_constraint
from nas.search.pareto import knee, on_front
from nas.search.study import STUDY_NAME, Study

STUDY = "study.db"
"""The study of a run; one that searched the policy of a fixed architecture is beside it, such as `study-largest.db`."""

MEASURED = (
    "measured_latency_ms",
    "measured_latency_spread_pct",
    "measured_error_pct",
    "measured_estimated_error_pct",
    "measured_cross_entropy",
    "measured_size_bytes",
    "test_error_pct",
    "agreement_pct",
)
"""Columns that verifying adds: latency on the device and spread; of the exported file error, estimated error (NaN where
it is no objective) and cross-entropy (nats, NaN where another machine measured) on the validation split, size, error on
the test split (which chooses nothing), and top-1 agreement with the torch simulation."""

FINETUNED = (
    "finetuned_latency_ms",
    "finetuned_latency_spread_pct",
    "finetuned_error_pct",
    "finetuned_estimated_error_pct",
    "finetuned_cross_entropy",
    "finetuned_size_bytes",
    "finetuned_test_error_pct",
    "finetuned_agreement_pct",
)
"""The same of the file after finetuning. Membership of the front goes by the values before it."""

LEFT_OUT = "on the front as searched, beyond --max-models"
"""Reason of a front member that was not exported when others were."""

_BOOKKEEPING = ("batch", "state", "seconds", "host", "reason", "verified", "on_front", "front_reason")


def load_results(run: str | Path, *, study: str = STUDY) -> pd.DataFrame:
    """All candidates of the run in the folder `run`, one a row, in order of evaluation; lower is better unless said.

    Columns:
        index, batch, state: place in the order of evaluation, batch it was in, "complete" or "failed".
        one a gene: `stage1.width`, `precision.stem`, ...
        one an objective, then further values: what the search saw (`latency_ms` of the profile, simulated `error_pct`).
        predicted_<objective>, predicted_std_<objective>: what was expected before measuring.
        seconds, host, reason: of the evaluation; why it failed.
        MEASURED: of the exported file; NaN where a candidate wasn't verified.
        FINETUNED: of the file after finetuning; NaN where a candidate wasn't finetuned.
        verified: whether it was.
        on_front: member of the front, by measured values once the run is verified, before that by searched ones.
        front_reason: why a verified candidate is not on the front, or one that was on it is not verified (`LEFT_OUT`);
            of members "not verified on <target>" where they were exported for another machine to measure.

    A search that still runs can be read. `attrs["objectives"]` holds the objectives as JSON data.

    Raises:
        UserError: there is no such run or study, or its files are damaged.
    """
    stored = load_study(run, study=study)
    frame = stored.frame()
    verified = load_verified(run, study=study)
    if verified is not None:
        frame = _join(frame, verified["rows"])
        left_out = on_front(frame, stored.objectives, stored.constraints) & ~frame["verified"]
        frame.loc[left_out, "front_reason"] = LEFT_OUT
    else:
        mask = on_front(frame, stored.objectives, stored.constraints) if len(frame) else np.zeros(0, bool)
        reasons = np.where(mask, unverified_note(run, study=study), "")
        frame = frame.assign(**dict.fromkeys(MEASURED, np.nan), verified=False, on_front=mask, front_reason=reasons)
    frame = _join_finetuned(frame, (load_finetuned(run, study=study) or {"rows": []})["rows"])
    if "estimated_error_pct" in frame:
        found = ErrorEstimate.of_rows(frame)(frame["finetuned_error_pct"], frame["finetuned_cross_entropy"])
        frame["finetuned_estimated_error_pct"] = found
    frame.attrs["objectives"] = [objective.to_json() for objective in stored.objectives]
    return frame


def load_study(run: str | Path, *, study: str = STUDY) -> Study:
    """The study of a run, which may still be searched; UserError when there is none."""
    folder = run_folder(run)
    options = beside(folder, study, "config.yaml")
    kept_at = load_options(options).get("study") if options.is_file() else None
    where, name = study_location(folder, study, kept_at)
    return Study.load(where, name=name)


def study_location(run: Path, study: str, kept_at: str | None) -> tuple[str | Path, str]:
    """Storage and name of a study: its file in the run's folder, or, in a storage that several runs share, the name of
    the folder with what tells this study from the run's others.
    """
    if kept_at is None:
        return run / study, STUDY_NAME
    return kept_at, run.resolve().name + Path(study).stem.removeprefix(Path(STUDY).stem)


def load_verified(run: str | Path, *, study: str = STUDY) -> dict[str, Any] | None:
    """What verifying wrote for `study`: device, date, runtime, seconds, rows; None before it has.

    Raises:
        UserError: the file is damaged.
    """
    path = beside(run, study, "verified.json")
    return _read_rows(path, {"index": int, "on_front": bool}, "delete it and run `nas search` to verify again")


def unverified_note(run: str | Path, *, study: str = STUDY) -> str:
    """ "not verified on <target>" of a front that was exported but not measured, because its target is elsewhere.

    Empty for any other front.

    Raises:
        UserError: the file is damaged.
    """
    exported = _read_rows(
        beside(run, study, "exported.json"), {"index": int}, "delete it and run `nas verify` to export again"
    )
    if exported is None or load_verified(run, study=study) is not None:
        return ""
    return f"not verified on {exported.get('target')}"


def load_finetuned(run: str | Path, *, study: str = STUDY) -> dict[str, Any] | None:
    """What finetuning wrote for `study`: device, date, runtime, recipe, rows; None before it has.

    Raises:
        UserError: the file is damaged.
    """
    path = beside(run, study, "finetuned.json")
    return _read_rows(path, {"index": int} | dict.fromkeys(FINETUNED, float), "do it anew with --redo finetune")


def _read_rows(path: Path, columns: dict[str, Any], way_out: str) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        pd.DataFrame(content["rows"], columns=list(columns)).astype(columns)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{str(path)!r} is damaged ({error!r}); {way_out}") from error
    return dict(content)


def beside(run: str | Path, study: str, name: str) -> Path:
    """The file or folder `name` that belongs to `study`: `verified-largest.json` for `study-largest.db`."""
    suffix = Path(study).stem.removeprefix(Path(STUDY).stem)
    return Path(run) / f"{Path(name).stem}{suffix}{Path(name).suffix}"


def run_folder(run: str | Path) -> Path:
    """`run` as a path; UserError unless it is a folder."""
    folder = Path(run)
    if not folder.is_dir():
        raise UserError(f"there is no run folder {str(run)!r}; make one with `nas search`, or give the path of another")
    return folder


def objectives_of(frame: pd.DataFrame) -> list[Objective]:
    """The objectives of what `load_results` gave, or of rows of it."""
    return [
        Objective(data["name"], **{k: v for k, v in data.items() if k != "name"}) for data in frame.attrs["objectives"]
    ]


def best_values(frame: pd.DataFrame, name: str) -> pd.Series:
    """Values of an objective or further column: measured on the latest file where that was done, else as searched."""
    known = [column for column in (f"finetuned_{name}", f"measured_{name}", name) if column in frame]
    values = frame[known[0]]
    for column in known[1:]:
        values = values.fillna(frame[column])
    return values


def front(frame: pd.DataFrame) -> pd.DataFrame:
    """The front's rows of what `load_results` gave, the fastest first (or the best in the first objective)."""
    members = frame[frame["on_front"]]
    objectives = {o.name: o for o in objectives_of(frame)}
    by = objectives.get("latency_ms") or next(iter(objectives.values()))
    order = best_values(members, by.name).sort_values(ascending=not by.maximize, kind="stable").index
    return members.loc[order]


def select(frame: pd.DataFrame, what: str) -> list[int]:
    """Indices of the front's members that `what` names, in the order of `front`.

    Args:
        frame: from `load_results`.
        what: "all"; "knee", the best compromise; limits such as "latency_ms<=2" or "latency_ms<=2,error_pct<=10"; or
            indices such as "12" or "3,12".

    Raises:
        UserError: nothing is on the front yet, `what` cannot be read, or no member fits.
    """
    members = front(frame)
    if members.empty:
        raise UserError("the run has no front yet; wait for the search, or run `nas search` again")
    available = [int(index) for index in members["index"]]
    parts = [part.strip() for part in what.split(",")]
    if what.strip() == "all":
        return available
    if what.strip() == "knee":
        objectives = objectives_of(frame)
        costs = as_costs({o.name: best_values(members, o.name) for o in objectives}, objectives)
        return [available[knee(costs)]]
    if all(part.isdecimal() for part in parts):
        return _by_index(available, [int(part) for part in parts])
    if not any(op in what for op in ("<=", ">=")):
        raise UserError(f"cannot select {what!r}; say knee, all, a limit such as latency_ms<=2, or one of {available}")
    return _by_limits(members, parts)


ACCURACY_MARGIN_PCT = 0.3
"""How much validation error a searched policy may have above the best uniform one's to be compared with it."""


def compare_policies(run: str | Path, *, study: str = STUDY) -> pd.DataFrame:
    """Uniform precisions beside the searched policy of one architecture, as measured; empty for a joint search.

    The searched policy is the fastest one, uniform ones included, whose validation error is at most
    `ACCURACY_MARGIN_PCT` above the lowest of the uniform ones.
    """
    rows = pd.DataFrame((load_verified(run, study=study) or {"rows": []})["rows"])
    uniform = rows[rows["policy"] != "searched"] if "policy" in rows else rows
    if uniform.empty:
        return uniform
    close = rows[rows["measured_error_pct"] <= uniform["measured_error_pct"].min() + ACCURACY_MARGIN_PCT]
    best = close.loc[[close["measured_latency_ms"].idxmin()]].assign(policy="searched")
    columns = ["policy", "index", *(name for name in MEASURED if name in rows)]
    return pd.concat([uniform, best])[columns].reset_index(drop=True)


def write_pareto_csv(run: str | Path, *, study: str = STUDY) -> Path:
    """Write the front, with searched and measured values and genes, to `pareto.csv` in the run folder."""
    members = front(load_results(run, study=study))
    names = [o.name for o in objectives_of(members)]
    genes = [name for name in members if "." in str(name)]
    first = ["index", *(name for name in names if name in members), *MEASURED, *FINETUNED]
    rest = [name for name in members if name not in {*first, *genes, *_BOOKKEEPING}]
    path = beside(run, study, "pareto.csv")
    if members["front_reason"].any():
        rest.append("front_reason")  # not verified on the target
    replace_text(path, members[[*first, *rest, *genes]].to_csv(index=False))
    return path


def replace_text(path: Path, text: str) -> None:
    """Write a file so that after any failure the old one, or none, is there; UserError when the disk refuses."""
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise UserError(f"can't write {str(path)!r}: {error.strerror}; choose another place or free some") from error


def _join(frame: pd.DataFrame, rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    columns = {"reason": "front_reason"}
    measured = pd.DataFrame(rows, columns=["index", "on_front", "reason", *MEASURED]).rename(columns=columns)
    measured = measured.astype(dict.fromkeys(MEASURED, float)).assign(verified=True)
    joined = frame.merge(measured, on="index", how="left", validate="one_to_one")
    for name in ("verified", "on_front"):
        joined[name] = joined[name].eq(True)
    joined["front_reason"] = joined["front_reason"].fillna("")
    return joined[[*frame.columns, *MEASURED, "verified", "on_front", "front_reason"]]


def _join_finetuned(frame: pd.DataFrame, rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    finetuned = pd.DataFrame(rows, columns=["index", *FINETUNED]).astype(
        {"index": int} | dict.fromkeys(FINETUNED, float)
    )
    return frame.merge(finetuned, on="index", how="left", validate="one_to_one")


def _by_index(available: list[int], wanted: list[int]) -> list[int]:
    for index in wanted:
        if index not in available:
            raise UserError(f"model {index} is not on the front; choose of {', '.join(map(str, sorted(available)))}")
    return [index for index in available if index in wanted]


def _by_limits(members: pd.DataFrame, limits: Sequence[str]) -> list[int]:
    numbers = [str(name) for name in members.select_dtypes("number") if "." not in str(name)]
    kept = members
    for text in limits:
        constraint = parse_constraint(text)
        check_name(constraint.objective, numbers, kind="quantity")
        kept = kept[constraint.violation(best_values(kept, constraint.objective)) <= 0]
        if kept.empty:
            values = best_values(members, constraint.objective)
            raise UserError(
                f"no model of the front keeps {','.join(limits)}; "
                f"{constraint.objective} is {values.min():.4g} to {values.max():.4g} there, choose a wider limit"
            )
    return [int(index) for index in kept["index"]]
