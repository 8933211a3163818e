"""Two processes train what one does: equal gradients, equal weights, and either continues the other's work."""

import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nas.errors import UserError
from nas.processes import own_shards
from nas.training import train_supernet
from tests.nas.training.launched import TWO_SHARDS, gradient
from tests.nas.training.runs import small_space
from tests.tiny_data import load


def launch(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run tests.nas.training.launched in two processes that talk over gloo."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"),
        *("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"),
        *("--main_process_port", str(port), "-m", "tests.nas.training.launched", *arguments),
    ]
    root = Path(__file__).parents[3]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)


def test_the_reduced_gradient_of_two_processes_is_that_of_one(tmp_path: Path) -> None:
    done = launch("gradient", str(tmp_path / "gradient.safetensors"))
    assert done.returncode == 0, done.stderr
    found = load_file(tmp_path / "gradient.safetensors")
    flat_grad, used = gradient()
    torch.testing.assert_close(found["flat_grad"], flat_grad, rtol=0, atol=1e-6)
    assert found["used"].tolist() == used
    assert flat_grad.abs().max() > 1e-3


def test_one_process_continues_where_two_were_killed(tmp_path: Path) -> None:
    killed = launch("train", str(tmp_path / "killed"), "10")
    assert killed.returncode != 0
    assert (tmp_path / "killed" / "checkpoint.safetensors").exists(), killed.stderr
    steps: list[float] = []
    resumed = train_supernet(
        small_space(),
        load(),
        tmp_path / "killed",
        options=TWO_SHARDS,
        progress=lambda done, total, message="": steps.append(done),
    )
    assert steps[0] == 9  # the last checkpoint before the kill
    whole = train_supernet(small_space(), load(), tmp_path / "whole", options=TWO_SHARDS)
    other = train_supernet(small_space(), load(), tmp_path / "other", options=replace(TWO_SHARDS, seed=1))
    assert (resumed.flat - whole.flat).abs().mean() < 1e-5  # sums in another order
    assert (other.flat - whole.flat).abs().mean() > 1e-2


def test_shards_that_processes_cannot_share_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.processes.num_processes", lambda: 2)
    with pytest.raises(UserError, match="num_shards=3 can't be divided among 2 processes; start a divisor of it"):
        own_shards(3)
