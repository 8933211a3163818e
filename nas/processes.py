"""One process or several, started by `accelerate launch`: who writes, and sums over all of them."""

import atexit
import os
from functools import cache
from typing import TYPE_CHECKING

import torch

from nas.errors import UserError

if TYPE_CHECKING:
    from accelerate import PartialState


@cache
def _state() -> "PartialState":
    from accelerate import PartialState  # slow to import

    state = PartialState(cpu=not torch.cuda.is_available())
    if is_launched():
        atexit.register(state.destroy_process_group)  # gloo's threads, left alone, may abort an interpreter that ends
    return state


def num_processes() -> int:
    """Processes that train together."""
    return _state().num_processes if is_launched() else 1


def is_launched() -> bool:
    """Was this process started as one of several?"""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_main() -> bool:
    """Is this the process that writes files and shows progress?"""
    return not is_launched() or _state().is_main_process


def device() -> torch.device:
    """Where this process trains: a GPU where there is one."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return _state().device if is_launched() else torch.device("cuda")


def wait_for_all() -> None:
    """Return when every process is here."""
    if is_launched():
        _state().wait_for_everyone()


def sum_over_all(tensor: torch.Tensor) -> None:
    """Replace a tensor by its sum over all processes."""
    if is_launched():
        _state()
        torch.distributed.all_reduce(tensor)


def own_shards(num_shards: int) -> range:
    """The shards of a step that this process trains; UserError when they can't be shared out evenly."""
    count = num_processes()
    if num_shards % count:
        raise UserError(
            f"num_shards={num_shards} can't be divided among {count} processes; start a divisor of it, or another run "
            f"with num_shards={count}"
        )
    index = _state().process_index if is_launched() else 0
    share = num_shards // count
    return range(index * share, (index + 1) * share)
