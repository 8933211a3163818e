"""Progress shows an estimate on terminals and stays quiet enough for logs."""

import io

import pytest
from rich.console import Console

from nas.progress import format_duration, rich_progress


class FakeClock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def log_of(reports: list[tuple[float, float, float, str]]) -> list[str]:
    """Lines printed to a log for (time, done, total, message) reports."""
    clock, out = FakeClock(), io.StringIO()
    with rich_progress("train", console=Console(file=out), clock=clock) as progress:
        for clock.now_s, done, total, message in reports:
            progress(done, total, message)
    return out.getvalue().splitlines()


def test_log_has_at_most_one_line_in_ten_seconds_and_one_at_the_end() -> None:
    lines = log_of([(float(second), second, 60, "") for second in range(61)])
    assert len(lines) == 7
    assert lines[-1] == "train: done in 1:00"


def test_log_line_states_share_time_left_and_message() -> None:
    lines = log_of([(0, 0, 100, ""), (20, 25, 100, "loss [1.5]")])
    assert lines[0] == "train: 25%, 0:20 spent, about 1:00 left, loss [1.5]"


def test_estimate_of_a_resumed_stage_counts_only_its_own_pace() -> None:
    lines = log_of([(0, 50, 100, ""), (10, 60, 100, "")])
    assert "about 0:40 left" in lines[0]


def test_stage_without_any_unit_of_work_is_shown() -> None:
    assert log_of([(11, 0, 0, "nothing to do")])[0] == "train: 0%, 0:11 spent, nothing to do"


def test_failed_stage_is_not_reported_as_done() -> None:
    out = io.StringIO()
    with pytest.raises(RuntimeError), rich_progress("train", console=Console(file=out)):
        raise RuntimeError("stopped")
    assert "done" not in out.getvalue()


def test_terminal_gets_a_bar_with_title_share_and_message() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    with rich_progress("train", console=console) as progress:
        progress(3, 4, "loss [1.5]")
    assert "train" in out.getvalue()
    assert "75%" in out.getvalue()
    assert "loss [1.5]" in out.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3661, "1:01:01")])
def test_durations_read_like_a_clock(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
