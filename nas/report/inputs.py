"""What a report is made of: the files of a run folder, as far as they are there."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from hardware_profiles.profile import HardwareProfile
from nas.errors import UserError
from nas.fidelity.measure import CSV, load_fidelity
from nas.fidelity.rows import load_rows
from nas.results import STUDY, beside, load_results, load_study, load_verified, run_folder, unverified_note
from nas.search.objectives import Constraint, Objective
from nas.sensitivity_tables import load_sensitivity


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Contents of a run folder; None or empty where a stage has not come that far."""

    folder: Path
    frame: pd.DataFrame
    """From `load_results`."""
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    config: Mapping[str, Any]
    """Options of the run."""
    supernet: Mapping[str, Any] | None
    """Content of `supernet.json`."""
    profile: HardwareProfile | None
    verified: Mapping[str, Any] | None
    """Content of `verified.json`, whose rows are in `frame`."""
    unverified: str
    """ "not verified on <target>" of a front that was exported but not measured, else empty."""
    models: Mapping[int, Mapping[str, Any]]
    """Index -> content of `architecture.json` of the front's exported members."""
    fidelity: Mapping[str, Any] | None
    """Content of `fidelity.json`."""
    fidelity_rows: pd.DataFrame | None
    """From `nas.fidelity.rows.load_rows`; there when `fidelity` is."""
    sensitivity: pd.DataFrame
    """From `nas.sensitivity_tables.load_sensitivity`."""


def read_inputs(run: str | Path, *, study: str = STUDY) -> Inputs:
    """Read the run in the folder `run`.

    Raises:
        UserError, ProfileError: there is no such run or study, or a file of it is damaged.
    """
    folder = run_folder(run)
    stored = load_study(folder, study=study)
    frame = load_results(folder, study=study)
    profile = folder / "profile.json"
    exported = beside(folder, study, "front")
    fidelity = load_fidelity(folder)
    files = {int(i): exported / str(i) / "architecture.json" for i in frame["index"][frame["on_front"]]}
    return Inputs(
        folder=folder,
        frame=frame,
        objectives=stored.objectives,
        constraints=stored.constraints,
        config=_read_yaml(folder / "config.yaml"),
        supernet=_read_json(folder / "supernet.json"),
        profile=HardwareProfile.load(profile) if profile.is_file() else None,
        verified=load_verified(folder, study=study),
        unverified=unverified_note(folder, study=study),
        models={index: content for index, path in files.items() if (content := _read_json(path)) is not None},
        fidelity=fidelity,
        fidelity_rows=None if fidelity is None else load_rows(folder / CSV),
        sensitivity=load_sensitivity(folder),
    )


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{str(path)!r} is damaged ({error}); run `nas search` again") from error
    if not isinstance(content, dict):
        raise UserError(f"{str(path)!r} is damaged (no JSON object); run `nas search` again")
    return content


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{str(path)!r} is not YAML ({reason}); run `nas search` again") from error
    return content if isinstance(content, dict) else {}
