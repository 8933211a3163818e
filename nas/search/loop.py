"""The search loop: ask a searcher for a batch, measure each candidate, write it down, until enough are measured."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from nas.errors import CandidateError, UserError
from nas.progress import Progress
from nas.search.feasibility import check_feasible
from nas.search.objectives import Constraint, Objective
from nas.search.pareto import on_front
from nas.search.problem import CheapColumns, SearchProblem
from nas.search.searchers import Searcher, Suggestion, describe_searcher, get_searcher
from nas.search.study import Row, Study, rows_to_frame
from search_spaces.space import Choice, Genotype

Evaluate = Callable[[Genotype], Mapping[str, float] | Sequence[float]]
"""From a genotype to its expensive objectives: by name, further columns allowed, or in the order they were given."""


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
    cheap: CheapColumns | None = None,
    study: str | Path | None = None,
    batch_size: int = 10,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> pd.DataFrame:
    """Search for the Pareto front of `objectives` over all combinations of `choices`.

    The same arguments give the same rows in the same order, in one go or interrupted and continued from `study`.

    Args:
        evaluate: measures one candidate. What it raises, and values that are not finite, are recorded as that row's
            `reason`, and the search goes on.
        choices: the genes.
        objectives: two or more.
        num_evaluations: rows in all, failed ones included; the search ends early when nothing is left to measure.
        searcher: a name in `SEARCHERS`, a dotted path, or an object.
        seed: decides every random choice.
        canonical: maps genotypes of equal networks to one genotype; it must be idempotent.
        initial: genotypes to measure first.
        constraints: bounds that members of the front must keep.
        cheap: computes the objectives declared cheap, and perhaps more columns, for many genotypes at once.
        study: file (SQLite) or storage URL to keep the rows in and continue from; None keeps them in memory.
        batch_size: candidates measured between two looks at what was learned.
        settings: JSON data that decide what `evaluate` and `cheap` give; a study made with others is refused.
        progress: told the number of rows after each.
        clock: seconds, for the `seconds` of a row.

    Returns:
        The study's rows in order of evaluation; columns as in `rows_to_frame`.

    Raises:
        UserError: the problem is not well posed, no candidate meets the constraints, the study is another search's,
            or every candidate of the first batch failed.
    """
    if num_evaluations < 1 or batch_size < 1:
        raise UserError(f"num_evaluations={num_evaluations} and batch_size={batch_size} must be 1 or more")
    problem = SearchProblem(
        choices=tuple(choices),
        objectives=tuple(objectives),
        constraints=tuple(constraints),
        canonical=canonical,
        cheap=cheap,
        initial=tuple(initial),
    )
    engine = get_searcher(searcher)
    all_settings = {
        **(settings or {}),
        "seed": seed,
        "searcher": describe_searcher(searcher),
        "batch_size": batch_size,
        "initial": [list(g.values()) for g in problem.decode(problem.encode(problem.initial))],
    }
    check_feasible(problem, rng=np.random.default_rng(seed))
    store = Study.open(study, problem.choices, problem.objectives, all_settings, constraints=problem.constraints)
    rows = store.rows()
    batch = rows[-1].batch if rows else 0
    while len(rows) < num_evaluations:
        suggestions = _ask(engine, problem, rows, batch=batch, batch_size=batch_size, seed=seed)
        if not suggestions:
            break
        for suggestion in _unmeasured(suggestions, rows, batch=batch)[: num_evaluations - len(rows)]:
            row = _measure(evaluate, problem, suggestion, index=len(rows), batch=batch, clock=clock)
            store.add(row)
            rows.append(row)
            if progress is not None:
                progress(len(rows), num_evaluations, _summary(rows, problem))
        if all(row.reason for row in rows):
            raise UserError(f"every evaluation failed, the last one with: {rows[-1].reason}; mend it and search again")
        batch += 1
    return rows_to_frame(rows, choices=problem.choices, objectives=problem.objectives)


def _ask(
    searcher: Searcher, problem: SearchProblem, rows: Sequence[Row], *, batch: int, batch_size: int, seed: int
) -> list[Suggestion]:
    """The whole batch, as a pure function of the seed and the batches before it."""
    history = [row for row in rows if row.batch < batch]
    # One thread: the order of a sum, and so the last bit, must not depend on how many cores are free.
    with threadpool_limits(limits=1):
        return searcher.ask(problem, history, num_candidates=batch_size, rng=np.random.default_rng([seed, batch]))


def _unmeasured(suggestions: Sequence[Suggestion], rows: Sequence[Row], *, batch: int) -> list[Suggestion]:
    """What remains of a batch that may have been begun; never a candidate that has a row already."""
    measured = {tuple(row.genotype.items()) for row in rows}
    num_done = sum(row.batch == batch for row in rows)
    rest = [s for s in suggestions if tuple(s.genotype.items()) not in measured]
    return rest[: len(suggestions) - num_done]


def _measure(
    evaluate: Evaluate,
    problem: SearchProblem,
    suggestion: Suggestion,
    *,
    index: int,
    batch: int,
    clock: Callable[[], float],
) -> Row:
    """Evaluate one candidate; a failure becomes the row's reason."""
    columns = {name: float(v[0]) for name, v in problem.compute_cheap(problem.encode([suggestion.genotype])).items()}
    reason = ""
    start_s = clock()
    try:
        measured = evaluate(dict(suggestion.genotype))
    except CandidateError as error:
        reason = str(error)
    except UserError:
        raise
    except Exception as error:  # one candidate that cannot be built or run must not end the search
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    else:
        columns = _merged(columns, measured, problem)
    names = [o.name for o in problem.objectives]
    lost = [name for name in names if not reason and not math.isfinite(columns[name])]
    reason = reason or ", ".join(f"{name} is {columns[name]}" for name in lost)
    return Row(
        index=index,
        batch=batch,
        genotype=suggestion.genotype,
        values={} if reason else {name: columns[name] for name in names},
        extras={name: value for name, value in columns.items() if name not in names and math.isfinite(value)},
        predicted=suggestion.predicted,
        predicted_std=suggestion.predicted_std,
        seconds=clock() - start_s,
        reason=reason,
    )


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


def _summary(rows: Sequence[Row], problem: SearchProblem) -> str:
    frame = rows_to_frame(rows, choices=(), objectives=problem.objectives)
    failed = sum(bool(row.reason) for row in rows)
    front = int(on_front(frame, problem.objectives, problem.constraints).sum())
    return f"front {front}" + (f", {failed} failed" if failed else "")
