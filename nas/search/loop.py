"""The search loop: ask a searcher for a batch, have each candidate evaluated, write it down, until a rule says stop.

Several processes may run the loop on one study: each asks for the same batches, and reserves what it evaluates.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from nas.errors import UserError
from nas.progress import Progress, format_duration
from nas.search.executors import Clock, Evaluate, Executor, ExecutorOf, LocalExecutor, Outcome
from nas.search.feasibility import check_feasible
from nas.search.objectives import Constraint, Focus, Objective
from nas.search.pareto import on_front
from nas.search.problem import CheapColumns, Describe, SearchProblem
from nas.search.reservations import Reservations
from nas.search.searchers import Searcher, Suggestion, check_focus, describe_searcher, get_searcher
from nas.search.stopping import HypervolumeMeasure, StopRule
from nas.search.study import STUDY_NAME, Row, Study, rows_to_frame
from search_spaces.space import Choice, Genotype

_POLL_S = 0.25
"""How often a process that waits for others looks at the study."""


def optimize(
    evaluate: Evaluate,
    choices: Sequence[Choice],
    *,
    objectives: Sequence[Objective],
    num_evaluations: int,
    searcher: str | Searcher = "predictor-guided",
    seed: int = 0,
    canonical: Callable[[Genotype], Genotype] | None = None,
    initial: Sequence[Genotype] = (),
    constraints: Sequence[Constraint] = (),
    focus: Sequence[Focus] = (),
    cheap: CheapColumns | None = None,
    describe: Describe | None = None,
    study: str | Path | None = None,
    study_name: str = STUDY_NAME,
    batch_size: int = 10,
    time_limit_s: float | None = None,
    patience: int | None = None,
    executor: ExecutorOf = LocalExecutor,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    clock: Clock = time.monotonic,
) -> pd.DataFrame:
    """Search for the Pareto front of `objectives` over all combinations of `choices`.

    The same arguments give the same rows, in one go or interrupted and continued from `study`, by one process or by
    several that run this at the same time on one study.

    Args:
        evaluate: measures one candidate. What it raises, and values that are not finite, are recorded as that row's
            `reason`, and the search goes on.
        choices: the genes.
        objectives: two or more; `nas.search.acquisition` says how three or more change the default searcher's batches.
        num_evaluations: rows in all, failed ones included; the search ends early when nothing is left to measure.
        searcher: a name in `SEARCHERS`, a dotted path, or an object.
        seed: decides every random choice.
        canonical: maps genotypes of equal networks to one genotype; it must be idempotent.
        initial: genotypes to measure first.
        constraints: bounds that members of the front must keep.
        focus: ranges of objectives, at most one each, in which to look once there is something to learn from.
        cheap: computes the objectives declared cheap, and perhaps more columns, for many genotypes at once.
        describe: says what the networks of many genotypes are made of, such as the paths of a graph. For each objective
            the default searcher learns from the genes or from one of these descriptions, whichever predicts left-out
            rows best, and expects that what is described like a failed candidate alone fails, too; others ignore it.
            See `Description`.
        study: file or storage URL to keep the rows in and continue from, see `open_storage`; None keeps them in memory.
        study_name: tells studies of one storage apart.
        batch_size: candidates measured between two looks at what was learned; no more are evaluated at once.
        time_limit_s, patience: when to stop before `num_evaluations`, see `StopRule`.
        executor: makes of `evaluate` what evaluates candidates, perhaps many at once; it does not change the rows.
        settings: JSON data that decide what `evaluate`, `cheap` and `describe` give; a study made with others is
            refused.
        progress: told the number of rows, the size of the front and its hypervolume (`HypervolumeMeasure`) after each.
        clock: seconds, for the time limit.

    Returns:
        The study's rows in order of evaluation; columns as in `rows_to_frame`. `attrs["stopped"]` says why the search
        ended early; it is empty when all of `num_evaluations` are there.

    Raises:
        UserError: the problem is not well posed, nothing meets the constraints, the searcher can't focus, the study is
            another search's, or every candidate of the first batch failed.
    """
    rule = StopRule(num_evaluations=num_evaluations, seconds=time_limit_s, patience=patience)
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size} must be 1 or more")
    problem = SearchProblem(
        choices=tuple(choices),
        objectives=tuple(objectives),
        constraints=tuple(constraints),
        focus=tuple(focus),
        canonical=canonical,
        cheap=cheap,
        describe=describe,
        initial=tuple(initial),
    )
    all_settings = {
        **(settings or {}),
        "seed": seed,
        "searcher": describe_searcher(searcher),
        "batch_size": batch_size,
        "initial": [list(g.values()) for g in problem.decode(problem.encode(problem.initial))],
    }
    if focus:
        all_settings["focus"] = sorted(map(str, focus))
    engine = get_searcher(searcher)
    check_focus(engine, problem.focus)
    check_feasible(problem, rng=np.random.default_rng(seed))
    store = Study.open(
        study, problem.choices, problem.objectives, all_settings, constraints=problem.constraints, name=study_name
    )
    workers = executor(evaluate)
    try:
        with Reservations(store) as reservations:
            search = _Search(problem, store, reservations, workers, rule, progress=progress, clock=clock)
            stopped = search.run(lambda rows, batch: _ask(engine, problem, rows, batch, batch_size, seed=seed))
    finally:
        workers.close()
    frame = rows_to_frame(store.rows(), choices=problem.choices, objectives=problem.objectives)
    frame.attrs["stopped"] = stopped
    return frame


class _Search:
    """One process's share of a search."""

    def __init__(
        self,
        problem: SearchProblem,
        store: Study,
        reservations: Reservations,
        workers: Executor,
        rule: StopRule,
        *,
        progress: Progress | None,
        clock: Clock,
    ) -> None:
        self._problem, self._store, self._reservations = problem, store, reservations
        self._workers, self._rule, self._progress, self._clock = workers, rule, progress, clock
        self._start_s = clock()
        self._num_reported = len(store.rows())

    def run(self, ask: Callable[[Sequence[Row], int], list[Suggestion]]) -> str:
        """Work on batch after batch; why it ended before the last evaluation, or nothing."""
        rows = self._store.rows()
        batch = rows[-1].batch if rows else 0
        while True:
            history = [row for row in rows if row.batch < batch]
            if self._rule.has_stopped_growing(self._problem, history):
                return (
                    f"the hypervolume grew by less than {100 * self._rule.min_growth:g}% "
                    f"in {self._rule.patience} evaluations"
                )
            suggestions = ask(history, batch)
            if not suggestions and len(history) < self._rule.num_evaluations:
                return "nothing is left to measure"
            slots = range(len(history), min(len(history) + len(suggestions), self._rule.num_evaluations))
            if not self._measure_batch(suggestions, slots, batch):
                return "the time limit was reached"
            rows = self._store.rows()
            if rows and all(row.reason for row in rows):
                raise UserError(
                    f"every evaluation failed, the last one with: {rows[-1].reason}; mend it and search again"
                )
            if len(rows) >= self._rule.num_evaluations:
                return ""
            batch += 1

    def _measure_batch(self, suggestions: Sequence[Suggestion], slots: range, batch: int) -> bool:
        """Reserve and evaluate what nobody does, until every index of `slots` has its row; False when time is up."""
        while True:
            rows = self._store.rows()
            self._report(rows)
            done = {row.index for row in rows}
            is_late = self._time_left_s() <= 0
            if all(index in done for index in slots) or (is_late and not self._reservations.num_own):
                return all(index in done for index in slots)
            if not is_late:
                self._submit(suggestions, [index for index in slots if index not in done], rows, batch)
            outcomes = self._workers.wait(_POLL_S)
            for id, outcome in outcomes:
                row = _finished(self._reservations.row(id), outcome, self._problem)
                self._reservations.finish(id, row)
            if not outcomes and not self._reservations.num_own:
                time.sleep(_POLL_S)

    def _submit(self, suggestions: Sequence[Suggestion], slots: Sequence[int], rows: Sequence[Row], batch: int) -> None:
        """Reserve as many free candidates of the batch, for the free ones of `slots`, as there are idle workers."""
        live = self._reservations.live()
        taken = {trial.index for trial in live}
        genotypes = {_key(row.genotype) for row in rows if row.batch == batch} | {_key(t.genotype) for t in live}
        free = [index for index in slots if index not in taken]
        rest = [s for s in suggestions if _key(s.genotype) not in genotypes]
        for index, suggestion in zip(free, rest, strict=False):
            if self._reservations.num_own >= self._workers.num_workers:
                return
            id = self._reservations.reserve(self._row(suggestion, index=index, batch=batch))
            if id is not None:
                self._workers.submit(id, suggestion.genotype)

    def _row(self, suggestion: Suggestion, *, index: int, batch: int) -> Row:
        """All that is known of a candidate before it is measured."""
        cheap = self._problem.compute_cheap(self._problem.encode([suggestion.genotype]))
        return Row(
            index=index,
            batch=batch,
            genotype=suggestion.genotype,
            extras={name: float(value[0]) for name, value in cheap.items() if math.isfinite(value[0])},
            predicted=suggestion.predicted,
            predicted_std=suggestion.predicted_std,
        )

    def _time_left_s(self) -> float:
        limit_s = self._rule.seconds
        return math.inf if limit_s is None else self._start_s + limit_s - self._clock()

    def _report(self, rows: Sequence[Row]) -> None:
        if self._progress is None or len(rows) == self._num_reported:
            return
        self._num_reported = len(rows)
        frame = rows_to_frame(rows, choices=(), objectives=self._problem.objectives)
        failed = int((frame["state"] == "failed").sum())
        front = int(on_front(frame, self._problem.objectives, self._problem.constraints).sum())
        volume = HypervolumeMeasure(self._problem, rows)
        message = f"{len(rows)}/{self._rule.num_evaluations} evaluations, front {front}"
        message += f", hypervolume {volume(rows):.4f}" if volume.is_fixed else ""
        message += f", {failed} failed" if failed else ""
        if self._rule.seconds is not None:
            message += f", {format_duration(self._time_left_s())} to the time limit"
        self._progress(len(rows), self._rule.num_evaluations, message)


def _finished(row: Row, outcome: Outcome, problem: SearchProblem) -> Row:
    """The reserved row with what was measured, or why that failed."""
    columns, reason = dict(row.extras), outcome.reason
    names = [o.name for o in problem.objectives]
    if not reason:
        columns = _merged(columns, outcome.measured, problem)
        lost = [name for name in names if not math.isfinite(columns.get(name, math.nan))]
        reason = ", ".join(f"{name} is {columns.get(name, math.nan)}" for name in lost)
    return replace(
        row,
        values={} if reason else {name: columns[name] for name in names},
        extras={name: value for name, value in columns.items() if name not in names and math.isfinite(value)},
        seconds=outcome.seconds,
        host=outcome.host,
        reason=reason,
    )


def _ask(
    searcher: Searcher, problem: SearchProblem, history: Sequence[Row], batch: int, batch_size: int, *, seed: int
) -> list[Suggestion]:
    """The whole batch, as a pure function of the seed and the batches before it."""
    # One thread: the order of a sum, and so the last bit, must not depend on how many cores are free.
    with threadpool_limits(limits=1):
        rng = np.random.default_rng([seed, batch])
        suggestions = searcher.ask(problem, history, num_candidates=batch_size, rng=rng)
    known = {_key(row.genotype) for row in history}
    return [s for s in suggestions if _key(s.genotype) not in known]


def _merged(
    columns: Mapping[str, float], measured: Mapping[str, float] | Sequence[float], problem: SearchProblem
) -> dict[str, float]:
    """Computed and measured columns together. Raises `UserError` when `evaluate` gave the wrong ones."""
    names = [o.name for o in problem.expensive]
    if not isinstance(measured, Mapping):
        if len(measured) != len(names):
            raise UserError(f"evaluate gave {len(measured)} values, but must give {len(names)}: {', '.join(names)}")
        measured = dict(zip(names, measured, strict=True))
    absent = [name for name in names if name not in measured]
    if absent:
        raise UserError(f"evaluate gave no {absent[0]!r}, but must give {', '.join(names)}; got {', '.join(measured)}")
    twice = sorted(set(measured) & set(columns))
    if twice:
        raise UserError(f"{twice[0]!r} is computed by `cheap` and given by evaluate; leave it out of one of them")
    return {**columns, **{name: float(value) for name, value in measured.items()}}


def _key(genotype: Genotype) -> tuple[tuple[str, Any], ...]:
    return tuple(genotype.items())
