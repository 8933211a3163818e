"""Evaluation by the workers of a Ray cluster: one actor a worker, each of which unpacks the evaluation once.

Ray is an extra: `pip install 'hybridnas[ray]'`.
"""

import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from nas.errors import UserError
from nas.search.executors import Evaluate, Outcome, measure
from search_spaces.space import Genotype

MAX_TRIES = 3
"""A candidate whose worker dies so often has failed: it may be what kills them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    id: int
    genotype: Genotype
    num_tries: int = 0


class RayExecutor:
    """Up to `num_workers` candidates at once, on the machines of a cluster.

    A candidate whose worker or machine is lost is given to another one, and a new worker starts where there is room.
    """

    def __init__(self, evaluate: Evaluate, *, num_workers: int = 2, address: str | None = None) -> None:
        """Start the workers.

        Args:
            evaluate: is sent to each worker, so it must be serializable, and what it reads must be there.
            num_workers: actors, each of which asks for one CPU.
            address: of a cluster, such as `auto` or `ray://head:10001`; None starts one on this machine.

        Raises:
            UserError: Ray is not installed, there is no cluster at the address, or `evaluate` can't be sent.
        """
        if num_workers < 1:
            raise UserError(f"workers={num_workers} must be 1 or more")
        self.num_workers = num_workers
        self._ray, self._owns_ray = _connect(address, num_workers)
        try:
            self._evaluate = self._ray.put(evaluate)
        except TypeError as error:
            self.close()
            raise UserError(
                f"{evaluate!r} can't be sent to workers ({error}); evaluate without --executor ray"
            ) from None
        self._actor_class = self._ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(_Worker)
        self._queue: deque[_Task] = deque()
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}
        self._busy: dict[Any, tuple[Any, _Task]] = {}
        self._num_lost = 0
        for _ in range(num_workers):
            self._start_worker()

    def submit(self, id: int, genotype: Genotype) -> None:
        self._queue.append(_Task(id=id, genotype=genotype))
        self._dispatch()

    def wait(self, timeout_s: float) -> list[tuple[int, Outcome]]:
        if not (self._queue or self._busy):
            return []
        refs = [*self._busy, *self._starting]
        ready, _ = self._ray.wait(refs, num_returns=1, timeout=timeout_s)
        if ready:  # and all others that ended meanwhile
            ready, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
        outcomes = [outcome for ref in ready for outcome in self._collect(ref)]
        self._dispatch()
        return outcomes

    def close(self) -> None:
        if self._owns_ray:
            self._ray.shutdown()
            return
        for actor in [*self._idle, *self._starting.values(), *(actor for actor, _ in self._busy.values())]:
            self._ray.kill(actor)

    def _start_worker(self) -> None:
        actor = self._actor_class.remote(self._evaluate)
        self._starting[actor.is_ready.remote()] = actor

    def _dispatch(self) -> None:
        while self._queue and self._idle:
            task, actor = self._queue.popleft(), self._idle.pop(0)
            self._busy[actor.measure.remote(task.genotype)] = (actor, task)

    def _collect(self, ref: Any) -> list[tuple[int, Outcome]]:
        """What a reference that is ready stands for: a started worker, an outcome, or the end of a worker."""
        actor, task = self._busy.pop(ref) if ref in self._busy else (self._starting.pop(ref), None)
        try:
            result = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise UserError(str(error.cause)) from None
            raise
        except self._ray.exceptions.RayError as error:  # the worker or its machine is gone
            return self._replace(task, error)
        self._idle.append(actor)
        return [] if task is None else [(task.id, result)]

    def _replace(self, task: _Task | None, error: Exception) -> list[tuple[int, Outcome]]:
        """Start another worker, and put the candidate of the lost one first in the queue."""
        self._num_lost += 1
        reason = " ".join(str(error).split())
        if task is None and not self._idle and not self._busy and self._num_lost > MAX_TRIES * self.num_workers:
            raise UserError(f"workers can't start: {reason[:300]}; mend it and search again")
        self._start_worker()
        if task is None:
            return []
        tries = task.num_tries + 1
        if tries >= MAX_TRIES:
            return [(task.id, Outcome(seconds=0.0, reason=f"its worker died {tries} times: {reason[:200]}"))]
        self._queue.appendleft(_Task(id=task.id, genotype=task.genotype, num_tries=tries))
        return []


class _Worker:
    """An actor; Ray makes it on some machine of the cluster."""

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate

    def is_ready(self) -> bool:
        return True

    def measure(self, genotype: Genotype) -> Outcome:
        return measure(self._evaluate, genotype, clock=time.perf_counter)


def _connect(address: str | None, num_workers: int) -> tuple[Any, bool]:
    """Ray, and whether this started it."""
    try:
        import ray
    except ModuleNotFoundError:
        raise UserError("--executor ray needs Ray; pip install 'hybridnas[ray]'") from None
    if ray.is_initialized():
        return ray, False
    options: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
    try:
        if address is None:
            ray.init(num_cpus=num_workers, include_dashboard=False, **options)
        else:
            ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(
            f"no Ray cluster answers at {address!r} ({' '.join(str(error).split())[:200]}); start one with `ray start`"
        ) from None
    return ray, True
