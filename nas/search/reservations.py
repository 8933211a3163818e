"""Reservations: how processes, perhaps on several machines, share the candidates of one study without doing one twice.

A reservation is a running trial of the study. Of several for one candidate the one inserted first counts. It is taken
back when its process has ended, which is seen at once on the same machine, or has shown no heartbeat for some time.
Optuna's own heartbeats are not used: journals have none, and a trial that is killed before its first one stays running.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import psutil

from nas.errors import UserError
from nas.search.study import Row, RunningTrial, Study

HEARTBEAT_S = 10.0
GRACE_S = 60.0
"""Without a heartbeat for so long a process counts as gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A process that evaluates candidates."""

    host: str
    pid: int
    started: float
    """When the process began, in seconds since 1970; tells it from a later one with the same number."""

    @classmethod
    def here(cls) -> "Owner":
        """This process."""
        return cls(host=socket.gethostname(), pid=os.getpid(), started=psutil.Process().create_time())

    def to_json(self) -> dict[str, Any]:
        return {"host": self.host, "pid": self.pid, "started": self.started}

    def has_ended(self) -> bool:
        """Whether the process ran on this machine and does no more; False when that can't be seen from here."""
        if self.host != socket.gethostname():
            return False
        try:
            process = psutil.Process(self.pid)
            return process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - self.started) > 2.0
        except psutil.NoSuchProcess:
            return True


class Reservations:
    """Candidates of a study that this process, and others, are working on. Leaving the block frees its own."""

    def __init__(
        self,
        study: Study,
        *,
        owner: Owner | None = None,
        heartbeat_s: float = HEARTBEAT_S,
        grace_s: float = GRACE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._study, self._owner, self._clock = study, owner or Owner.here(), clock
        self._heartbeat_s, self._grace_s = heartbeat_s, grace_s
        self._own: dict[int, Row] = {}
        self._seen: dict[int, tuple[str, float]] = {}
        self._num_beats = 0
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, name="heartbeat", daemon=True)

    def __enter__(self) -> "Reservations":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._leaving.set()
        self._thread.join()
        for id in list(self._own):
            self._study.give_up(id, "the search was stopped")

    @property
    def num_own(self) -> int:
        """Reservations of this process that it has not finished."""
        return len(self._own)

    def live(self) -> list[RunningTrial]:
        """All reservations that count; those of processes that are gone are taken back first."""
        kept = []
        for trial in self._study.running():
            why = "" if trial.id in self._own else self._why_stale(trial)
            if why:
                self._study.give_up(trial.id, why)
            else:
                kept.append(trial)
        return kept

    def reserve(self, row: Row) -> int | None:
        """Reserve a candidate; the reservation's id, or None when somebody was faster.

        Args:
            row: the candidate with its index and all that is known before it is measured.
        """
        id = self._study.reserve(row, owner=self._owner.to_json(), heartbeat=self._beat())
        self._own[id] = row
        rivals = [t.id for t in self.live() if t.index == row.index or t.genotype == row.genotype]
        rows = self._study.rows()  # after the rivals: one of them may have finished in between
        if rivals[:1] == [id] and not any(r.index == row.index or r.genotype == row.genotype for r in rows):
            return id
        del self._own[id]
        self._study.give_up(id, "reserved by another process before")
        return None

    def row(self, id: int) -> Row:
        """What was reserved."""
        return self._own[id]

    def finish(self, id: int, row: Row) -> bool:
        """Write the row of a reservation; False, and nothing is written, when it was taken back meanwhile."""
        del self._own[id]
        return self._study.finish(id, row)

    def _why_stale(self, trial: RunningTrial) -> str:
        """Why a reservation of another process is taken back; empty while it counts."""
        owner = _owner_of(trial.owner)
        if owner.has_ended():
            return f"process {owner.pid} on {owner.host} has ended"
        now_s = self._clock()
        heartbeat, since_s = self._seen.get(trial.id, ("", now_s))
        if heartbeat != trial.heartbeat:
            since_s = now_s
        self._seen[trial.id] = (trial.heartbeat, since_s)
        silent_s = now_s - since_s
        return f"no heartbeat of process {owner.pid} on {owner.host}" if silent_s > self._grace_s else ""

    def _keep_beating(self) -> None:
        while not self._leaving.wait(self._heartbeat_s):
            heartbeat = self._beat()
            for id in list(self._own):
                try:
                    self._study.beat(id, heartbeat)
                except UserError:
                    break  # the search itself meets the same trouble and tells it; this beat is lost

    def _beat(self) -> str:
        self._num_beats += 1
        return f"{self._num_beats} {time.strftime('%Y-%m-%dT%H:%M:%S')}"


def _owner_of(data: Mapping[str, Any]) -> Owner:
    return Owner(host=data["host"], pid=data["pid"], started=data["started"])
