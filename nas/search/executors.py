"""Executors: where the candidates of a search are evaluated. This one does it in the process of the search."""

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from nas.errors import CandidateError, UserError
from search_spaces.space import Genotype

Evaluate = Callable[[Genotype], Mapping[str, float] | Sequence[float]]
"""From a genotype to its expensive objectives: by name, further columns allowed, or in the order they were given."""

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one evaluation."""

    measured: Mapping[str, float] | Sequence[float] = field(default_factory=dict)
    """What `evaluate` gave; empty when it failed."""
    seconds: float
    host: str = field(default_factory=socket.gethostname)
    reason: str = ""
    """Why it failed; empty when it did not."""


class Executor(Protocol):
    """Evaluates candidates, several at a time where it has several workers."""

    @property
    def num_workers(self) -> int:
        """Candidates that are worth submitting at once."""

    def submit(self, id: int, genotype: Genotype) -> None:
        """Evaluate a candidate now or later."""

    def wait(self, timeout_s: float) -> list[tuple[int, Outcome]]:
        """Evaluations that ended, each with its id; empty when none has after `timeout_s`, or none was submitted.

        Raises:
            UserError: the search itself can't go on; what makes a single candidate fail is an outcome.
        """

    def close(self) -> None:
        """Stop the workers; evaluations that go on are lost."""


ExecutorOf = Callable[[Evaluate], Executor]
"""Makes an executor of what evaluates one candidate."""


class LocalExecutor:
    """One candidate at a time, in this process."""

    num_workers = 1

    def __init__(self, evaluate: Evaluate, *, clock: Clock = time.perf_counter) -> None:
        self._evaluate, self._clock = evaluate, clock
        self._submitted: list[tuple[int, Genotype]] = []

    def submit(self, id: int, genotype: Genotype) -> None:
        self._submitted.append((id, genotype))

    def wait(self, timeout_s: float) -> list[tuple[int, Outcome]]:
        if not self._submitted:
            return []
        id, genotype = self._submitted.pop(0)
        return [(id, measure(self._evaluate, genotype, clock=self._clock))]

    def close(self) -> None:
        self._submitted.clear()


def measure(evaluate: Evaluate, genotype: Genotype, *, clock: Clock = time.perf_counter) -> Outcome:
    """Evaluate one candidate; what it raises is the reason of its failure, but for a `UserError`, which is raised."""
    start_s = clock()
    measured: Mapping[str, float] | Sequence[float] = {}
    reason = ""
    try:
        measured = evaluate(dict(genotype))
    except CandidateError as error:
        reason = str(error)
    except UserError:
        raise
    except Exception as error:  # one candidate that cannot be built or run must not end the search
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return Outcome(measured=measured, seconds=clock() - start_s, reason=reason)
