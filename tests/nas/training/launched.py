"""What each of several processes runs: `-m tests.nas.training.launched gradient|train PATH [STEP]`.

At STEP the main process kills itself, as `kill -9` would.
"""

import os
import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

from nas.processes import is_main, own_shards
from nas.supernet import Supernet
from nas.training import train_supernet
from nas.training.batches import load_batches
from nas.training.loop import train_step
from nas.training.state import new_state
from nas.training.strategies import get_strategy
from tests.nas.training.runs import OPTIONS, small_space
from tests.tiny_data import load

TWO_SHARDS = replace(OPTIONS, batch_size=32, num_shards=2)


def gradient() -> tuple[torch.Tensor, list[bool]]:
    """The shared gradient of the first step, and which shared tensors have one."""
    torch.manual_seed(0)
    data, supernet = load(), Supernet(small_space())
    state = new_state(supernet, get_strategy(TWO_SHARDS, supernet.space), TWO_SHARDS)
    shards = own_shards(TWO_SHARDS.num_shards)
    raws = next(load_batches(data, TWO_SHARDS, num_views=1, shards=shards, steps=range(1)))
    train_step(state, data, TWO_SHARDS, dict(zip(shards, raws, strict=True)))
    return supernet.flat_grad, [parameter.grad is not None for parameter in supernet.shared.values()]


def kill_at(step: int, done: float, total: float, message: str = "") -> None:
    if done == step:
        os.kill(os.getpid(), signal.SIGKILL)


def main(what: str, path: Path, step: int = -1) -> None:
    if what == "gradient":
        flat_grad, used = gradient()
        if is_main():
            save_file({"flat_grad": flat_grad, "used": torch.tensor(used)}, path)
    else:
        train_supernet(small_space(), load(), path, options=TWO_SHARDS, progress=partial(kill_at, step))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))
