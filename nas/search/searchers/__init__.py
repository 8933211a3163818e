"""Searchers by name, or by dotted path."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from nas.errors import UserError
from nas.search.objectives import Focus
from nas.search.searchers.aging_evolution import AgingEvolution
from nas.search.searchers.evolutionary import Evolutionary
from nas.search.searchers.interface import Searcher, Suggestion
from nas.search.searchers.local_search import LocalSearch
from nas.search.searchers.optuna_samplers import OptunaSampler
from nas.search.searchers.predictor_guided import PredictorGuided
from nas.search.searchers.random_search import RandomSearch
from search_spaces.plugins import named

__all__ = [
    "SEARCHERS",
    "AgingEvolution",
    "Evolutionary",
    "LocalSearch",
    "OptunaSampler",
    "PredictorGuided",
    "RandomSearch",
    "Searcher",
    "Suggestion",
    "check_focus",
    "describe_searcher",
    "get_searcher",
]

SEARCHERS: Mapping[str, Callable[[], Searcher]] = {
    "predictor-guided": PredictorGuided,
    "predictor-guided-recall": lambda: PredictorGuided(front_share=0.8, drawn_until=50),
    "nsga2": Evolutionary,
    "nsga3": lambda: Evolutionary(algorithm="nsga3"),
    "age-moea": lambda: Evolutionary(algorithm="age-moea"),
    "aging-evolution": AgingEvolution,
    "local-search": LocalSearch,
    "tpe": OptunaSampler,
    "gp": lambda: OptunaSampler(sampler="gp"),
    "random": RandomSearch,
}


def get_searcher(searcher: str | Searcher) -> Searcher:
    """A searcher by name, by dotted path `my_package.search:MySearcher` (called without arguments), or itself.

    Raises `UserError` when there is no such searcher.
    """
    if not isinstance(searcher, str):
        return searcher
    return named("searcher", searcher, SEARCHERS, error=UserError)()


def check_focus(searcher: Searcher, focus: Sequence[Focus]) -> None:
    """Raise `UserError` when there is a focus and the searcher is one of these that don't look at it."""
    if focus and isinstance(searcher, AgingEvolution | Evolutionary | LocalSearch | OptunaSampler | RandomSearch):
        raise UserError(
            f"{type(searcher).__name__} can't focus on {focus[0]}; take the searcher predictor-guided, or constraints"
        )


def describe_searcher(searcher: Any) -> Any:
    """What the study records of a searcher, as JSON data: its name, or its class and fields."""
    if isinstance(searcher, str):
        return searcher
    kind = type(searcher)
    fields = asdict(searcher) if is_dataclass(searcher) and not isinstance(searcher, type) else {}
    return {"class": f"{kind.__module__}:{kind.__qualname__}", **fields}
