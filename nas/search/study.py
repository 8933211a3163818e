"""The study: every candidate of a search, reserved and then measured, in an Optuna storage, written as it happens."""

import json
import socket
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.errors import UserError
from nas.search.objectives import Constraint, Objective
from nas.search.storage import is_url, open_storage, storage_errors
from search_spaces.space import Choice, Genotype

STUDY_NAME = "search"
"""What Optuna knows a study as, unless its database is shared by several."""

_SETTINGS, _EXTRAS, _PREDICTED, _PREDICTED_STD = "settings", "extra", "predicted", "predicted_std"
_OWNER, _HEARTBEAT, _GIVEN_UP = "owner", "heartbeat", "given_up"

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One evaluated candidate."""

    index: int
    """Place in the order of evaluation, from 0."""
    batch: int
    genotype: Genotype
    values: Mapping[str, float] = field(default_factory=dict)
    """Objective name -> value; empty when the evaluation failed."""
    extras: Mapping[str, float] = field(default_factory=dict)
    """Further columns that were measured or computed."""
    predicted: Mapping[str, float] = field(default_factory=dict)
    """Objective name -> value expected before the measurement."""
    predicted_std: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    """How long the evaluation took."""
    host: str = field(default_factory=socket.gethostname)
    reason: str = ""
    """Why the evaluation failed; empty when it did not."""

    @property
    def state(self) -> str:
        return "failed" if self.reason else "complete"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningTrial:
    """A candidate that somebody reserved and has not finished."""

    id: int
    number: int
    """Place in the order of insertion, the same for every reader."""
    index: int
    genotype: Genotype
    owner: Mapping[str, Any]
    """Who reserved it."""
    heartbeat: str
    """Changes while the owner lives."""


class Study:
    """Rows in an Optuna study. `open` starts or continues one, `load` reads one.

    A candidate is inserted as a running trial, and one change of its state, to complete or failed, makes it a row. A
    trial that was given up is no row.
    """

    def __init__(
        self,
        study: optuna.Study,
        storage: BaseStorage,
        *,
        where: str,
        choices: Sequence[Choice],
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint] = (),
    ) -> None:
        self.where = where
        self.choices = tuple(choices)
        self.objectives = tuple(objectives)
        self.constraints = tuple(constraints)
        self._study, self._storage = study, storage
        self._id = storage.get_study_id_from_name(study.study_name)
        self._rows: dict[int, Row] = {}
        self._distributions = {c.name: CategoricalDistribution(tuple(c.values)) for c in choices}

    @classmethod
    def open(
        cls,
        path: str | Path | None,
        choices: Sequence[Choice],
        objectives: Sequence[Objective],
        settings: Mapping[str, Any],
        *,
        constraints: Sequence[Constraint] = (),
        name: str = STUDY_NAME,
    ) -> "Study":
        """Start a study, or continue the one that is there.

        Args:
            path: see `open_storage`; None for memory only.
            choices: the genes.
            objectives: what is measured.
            settings: JSON data that decide the rows, such as the seed and the hashes of the inputs; not the number of
                evaluations, which may grow.
            constraints: recorded with each row for Optuna's tools.
            name: tells studies of one storage apart.

        Raises:
            UserError: the file is no study, or one that was started with other settings.
        """
        given = _as_json(choices, objectives, constraints, settings)
        where = "memory" if path is None else str(path)
        with storage_errors(where):
            storage = open_storage(path)
            study = optuna.create_study(
                storage=storage,
                study_name=name,
                directions=["maximize" if o.maximize else "minimize" for o in objectives],
                load_if_exists=True,
            )
            stored = study.user_attrs.get(_SETTINGS)
            if stored is None and not study.get_trials(deepcopy=False):
                study.set_user_attr(_SETTINGS, given)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ExperimentalWarning)
                    study.set_metric_names([o.name for o in objectives])
                stored = given
        _refuse_other_settings(stored, given, where=where)
        return cls(study, storage, where=where, choices=choices, objectives=objectives, constraints=constraints)

    @classmethod
    def load(cls, path: str | Path, *, name: str = STUDY_NAME) -> "Study":
        """Read the study at `path` (file or storage URL), which may still be running."""
        where = str(path)
        if not is_url(path) and not Path(path).is_file():
            raise UserError(f"there is no study {where!r}; give the file of a search that has begun")
        found = _find(path, name)
        if found is None:
            raise _no_study(where)
        study, storage, stored = found
        return cls(
            study,
            storage,
            where=where,
            choices=[Choice(name=name, values=tuple(values)) for name, values in stored["choices"].items()],
            objectives=[Objective(name, **rest) for name, rest in stored["objectives"].items()],
            constraints=[Constraint(**c) for c in stored["constraints"]],
        )

    @staticmethod
    def settings_at(path: str | Path | None, *, name: str = STUDY_NAME) -> dict[str, Any]:
        """`settings` of the study at `path`, empty where none has begun."""
        if path is None or not (is_url(path) or Path(path).is_file()):
            return {}
        found = _find(path, name)
        return {} if found is None else found[2]

    @property
    def settings(self) -> dict[str, Any]:
        """What decided the rows, choices and objectives included."""
        return dict(self._study.user_attrs[_SETTINGS])

    def add(self, row: Row) -> None:
        """Append one row: one insert, durable when this returns."""
        with storage_errors(self.where):
            self._storage.create_new_trial(self._id, self._trial(row))

    def reserve(self, row: Row, *, owner: Mapping[str, Any], heartbeat: str) -> int:
        """Insert the candidate of `row`, which has no values yet, as a running trial; its id."""
        trial = self._trial(row, state=TrialState.RUNNING)
        trial.user_attrs |= {_OWNER: dict(owner), _HEARTBEAT: heartbeat}
        with storage_errors(self.where):
            return self._storage.create_new_trial(self._id, trial)

    def finish(self, id: int, row: Row) -> bool:
        """Make a running trial the row; False, and nothing is changed, when somebody gave it up before."""
        trial = self._trial(row)
        with storage_errors(self.where):
            try:
                known = self._storage.get_trial(id)
                for key, value in trial.user_attrs.items():
                    if known.user_attrs.get(key) != value:
                        self._storage.set_trial_user_attr(id, key, value)
                for key, value in trial.system_attrs.items():
                    self._storage.set_trial_system_attr(id, key, value)
                return self._storage.set_trial_state_values(id, trial.state, trial.values)
            except UpdateFinishedTrialError:
                return False

    def give_up(self, id: int, why: str) -> None:
        """Free the candidate of a running trial, which then is no row; nothing happens when it is running no more."""
        with storage_errors(self.where):
            try:
                self._storage.set_trial_user_attr(id, _GIVEN_UP, why)  # before the state: a failure may be a row
                self._storage.set_trial_state_values(id, TrialState.FAIL)
            except UpdateFinishedTrialError:
                return

    def beat(self, id: int, heartbeat: str) -> None:
        """Show that the owner of a running trial lives; nothing happens when it is running no more."""
        with storage_errors(self.where):
            try:
                self._storage.set_trial_user_attr(id, _HEARTBEAT, heartbeat)
            except UpdateFinishedTrialError:
                return

    def running(self) -> list[RunningTrial]:
        """Candidates that are reserved and not finished, in order of insertion."""
        with storage_errors(self.where):
            trials = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [
            RunningTrial(
                id=trial._trial_id,
                number=trial.number,
                index=trial.user_attrs["index"],
                genotype={c.name: trial.params[c.name] for c in self.choices},
                owner=trial.user_attrs[_OWNER],
                heartbeat=trial.user_attrs[_HEARTBEAT],
            )
            for trial in trials
            if _OWNER in trial.user_attrs
        ]

    def rows(self) -> list[Row]:
        """All rows in order of evaluation."""
        with storage_errors(self.where):
            trials = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))
        for trial in trials:
            is_row = trial.state == TrialState.COMPLETE or _GIVEN_UP not in trial.user_attrs
            if is_row and "index" in trial.user_attrs and trial.number not in self._rows:
                self._rows[trial.number] = self._row(trial)
        return sorted(self._rows.values(), key=lambda row: row.index)

    def frame(self) -> pd.DataFrame:
        """All rows in order of evaluation; see `rows_to_frame` for the columns."""
        return rows_to_frame(self.rows(), choices=self.choices, objectives=self.objectives)

    def _trial(self, row: Row, *, state: TrialState | None = None) -> FrozenTrial:
        """A row as Optuna keeps it."""
        known = {**row.extras, **row.values}
        if state is None:
            state = TrialState.FAIL if row.reason else TrialState.COMPLETE
        attributes: dict[str, Any] = {"index": row.index, "batch": row.batch, "seconds": row.seconds, "host": row.host}
        for kind, values in ((_EXTRAS, row.extras), (_PREDICTED, row.predicted), (_PREDICTED_STD, row.predicted_std)):
            attributes |= {f"{kind}:{name}": float(value) for name, value in values.items()}
        if row.reason:
            attributes["reason"] = row.reason
        complete = state == TrialState.COMPLETE
        return create_trial(
            state=state,
            values=[float(row.values[o.name]) for o in self.objectives] if complete else None,
            params=dict(row.genotype),
            distributions=dict(self._distributions),
            user_attrs=attributes,
            constraints={str(c): float(c.violation(known[c.objective])) for c in self.constraints if complete},
        )

    def _row(self, trial: FrozenTrial) -> Row:
        attributes = trial.user_attrs
        values = trial.values if trial.state == TrialState.COMPLETE else None
        return Row(
            index=attributes["index"],
            batch=attributes["batch"],
            genotype={c.name: trial.params[c.name] for c in self.choices},
            values=dict(zip([o.name for o in self.objectives], values, strict=True)) if values is not None else {},
            extras=_of_kind(_EXTRAS, attributes),
            predicted=_of_kind(_PREDICTED, attributes),
            predicted_std=_of_kind(_PREDICTED_STD, attributes),
            seconds=attributes["seconds"],
            host=attributes["host"],
            reason=attributes.get("reason", ""),
        )


def rows_to_frame(rows: Sequence[Row], *, choices: Sequence[Choice], objectives: Sequence[Objective]) -> pd.DataFrame:
    """One line a row: index, batch, state, genes, objectives (NaN where failed), extras, predicted_<objective>,
    predicted_std_<objective>, seconds, host, reason.
    """
    extras = list(dict.fromkeys(name for row in rows for name in row.extras))
    predicted = [o.name for o in objectives if any(o.name in row.predicted for row in rows)]
    predicted_std = [o.name for o in objectives if any(o.name in row.predicted_std for row in rows)]
    columns: dict[str, list[Any]] = {name: [getattr(r, name) for r in rows] for name in ("index", "batch", "state")}
    columns |= {c.name: [row.genotype[c.name] for row in rows] for c in choices}
    columns |= {o.name: [row.values.get(o.name, float("nan")) for row in rows] for o in objectives}
    columns |= {name: [row.extras.get(name, float("nan")) for row in rows] for name in extras}
    columns |= {f"predicted_{n}": [row.predicted.get(n, float("nan")) for row in rows] for n in predicted}
    columns |= {f"predicted_std_{n}": [row.predicted_std.get(n, float("nan")) for row in rows] for n in predicted_std}
    columns |= {name: [getattr(row, name) for row in rows] for name in ("seconds", "host", "reason")}
    return pd.DataFrame(columns)


def _of_kind(kind: str, attributes: Mapping[str, Any]) -> dict[str, float]:
    return {key.removeprefix(f"{kind}:"): value for key, value in attributes.items() if key.startswith(f"{kind}:")}


def _find(path: str | Path, name: str) -> tuple[optuna.Study, BaseStorage, dict[str, Any]] | None:
    """A study that `Study.open` made, its storage and its settings."""
    with storage_errors(str(path)):
        storage = open_storage(path)
        try:
            study = optuna.load_study(study_name=name, storage=storage)
        except KeyError:
            return None
        stored = study.user_attrs.get(_SETTINGS)
    return None if stored is None else (study, storage, dict(stored))


def _no_study(where: str) -> UserError:
    return UserError(f"{where} holds no study of a search; give another path, or move the file away to start anew")


def _as_json(
    choices: Sequence[Choice],
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    whole = {
        **settings,
        "choices": {c.name: list(c.values) for c in choices},
        "objectives": {o.name: {k: v for k, v in o.to_json().items() if k != "name"} for o in objectives},
        "constraints": [{"objective": c.objective, "op": c.op, "bound": c.bound} for c in constraints],
    }
    return json.loads(json.dumps(whole))


def _refuse_other_settings(stored: dict[str, Any] | None, given: dict[str, Any], *, where: str) -> None:
    if stored is None:
        raise _no_study(where)
    if stored == given and all(list(stored[key]) == list(given[key]) for key in ("choices", "objectives")):
        return
    changes = list(_differences(stored, given))
    shown = ", ".join(changes[:5]) + (f" and {len(changes) - 5} more" if len(changes) > 5 else "")
    raise UserError(
        f"the study {where} was started with other settings: {shown or 'the order of choices or objectives'}; "
        "use the settings it began with, or another path"
    )


def _differences(stored: Any, given: Any, name: str = "") -> Iterator[str]:
    """What differs, one text a setting: `seed 0, now 1`."""
    if isinstance(stored, dict) and isinstance(given, dict):
        for key in sorted({*stored, *given}):
            yield from _differences(stored.get(key), given.get(key), f"{name}.{key}" if name else key)
    elif stored != given:
        yield f"{name} {_short(stored)}, now {_short(given)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
