"""Progress of long stages: a callback that stages report to, and its display with an estimate of the time left."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichBar

Clock = Callable[[], float]


class Progress(Protocol):
    """What a long stage is given; it reports as often as it likes."""

    def __call__(self, done: float, total: float, message: str = "") -> None:
        """`done` of `total` units are finished; `message` is one short line about the latest one."""


def no_progress(done: float, total: float, message: str = "") -> None:
    """Shows nothing."""


@contextmanager
def rich_progress(
    title: str,
    *,
    console: Console | None = None,
    interval_s: float = 10.0,
    clock: Clock = time.monotonic,
) -> Iterator[Progress]:
    """Yield a `Progress` shown on `console` (default: stderr) until the block ends.

    A terminal gets a bar with the time spent and left; anything else a line at most every `interval_s` seconds, and
    one at the end.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        lines = _Lines(title, console=console, interval_s=interval_s, clock=clock)
        yield lines
        lines.finish()
        return
    bar = RichBar(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[message]}", markup=False),
        console=console,
        speed_estimate_period=120.0,  # a step may last seconds; rich looks back half a minute by default
    )
    with bar:
        task = bar.add_task(title, total=None, message="")

        def report(done: float, total: float, message: str = "") -> None:
            bar.update(task, completed=done, total=total, message=message)

        yield report


def format_duration(seconds: float) -> str:
    """`m:ss`, or `h:mm:ss` from an hour on."""
    minutes, rest_s = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest_s:02d}" if hours else f"{minutes}:{rest_s:02d}"


class _Lines:
    """Progress as plain lines, for logs."""

    def __init__(self, title: str, *, console: Console, interval_s: float, clock: Clock) -> None:
        self._title = title
        self._console = console
        self._interval_s = interval_s
        self._clock = clock
        self._start_s = clock()
        self._printed_s = self._start_s
        self._first: tuple[float, float] | None = None

    def __call__(self, done: float, total: float, message: str = "") -> None:
        now_s = self._clock()
        if self._first is None:
            self._first = (done, now_s)
        if now_s - self._printed_s < self._interval_s:
            return
        self._printed_s = now_s
        parts = [f"{100 * done / total:.0f}%" if total else "0%", f"{format_duration(now_s - self._start_s)} spent"]
        left_s = self._left_s(done, total, now_s)
        if left_s is not None:
            parts.append(f"about {format_duration(left_s)} left")
        self._print(", ".join([*parts, message] if message else parts))

    def finish(self) -> None:
        self._print(f"done in {format_duration(self._clock() - self._start_s)}")

    def _left_s(self, done: float, total: float, now_s: float) -> float | None:
        """Seconds left at the pace since the first report, which may be far from zero in a resumed stage."""
        assert self._first is not None
        first_done, first_s = self._first
        if done <= first_done:
            return None
        return (total - done) * (now_s - first_s) / (done - first_done)

    def _print(self, text: str) -> None:
        self._console.print(f"{self._title}: {text}", markup=False, highlight=False, soft_wrap=True)
