"""Multi-objective search over any list of choices; it needs no supernet.

from nas.search import Objective, optimize
frame = optimize(evaluate, choices, objectives=[Objective("error_pct"), Objective("latency_ms")], num_evaluations=100)
"""

from typing import TYPE_CHECKING, Any

from nas.search.objectives import Constraint, Focus, Objective, parse_constraint, parse_focus

if TYPE_CHECKING:
    from nas.search.loop import optimize
    from nas.search.study import Study

__all__ = ["Constraint", "Focus", "Objective", "Study", "optimize", "parse_constraint", "parse_focus"]


def __getattr__(name: str) -> Any:
    """Load what needs optuna, pymoo and scikit-learn on first use."""
    if name == "optimize":
        from nas.search.loop import optimize

        return optimize
    if name == "Study":
        from nas.search.study import Study

        return Study
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
