"""Training many networks alone, in processes of one thread each.

A worker holds the data and trains what it is sent; it writes nothing but its training's folder. Pipes to and from
the command are all they share, so either side notices the other's end.
"""

import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, cast

import torch

from nas.data import ImageData
from nas.errors import UserError
from nas.fidelity.sampling import Training
from nas.training import TrainOptions, train_supernet
from search_spaces import SearchSpace, SpaceError
from search_spaces.fixed import FixedSpace

Load = Callable[[], tuple[ImageData, SearchSpace]]
"""How a worker gets data and space: a function of a module, or a `functools.partial` of one."""

GRACE_S = 10.0
"""What a worker that is told to stop gets before it is killed."""


def standalone_options(recipe: TrainOptions, *, num_epochs: int, seed: int) -> TrainOptions:
    """The supernet's recipe for one network from random weights.

    One shard a step: more would only mean fewer updates. Nothing is watched; the worker itself reads the images.
    """
    return replace(
        recipe,
        strategy="single-path",
        size_bias=0.0,
        entanglement="full",
        num_shards=1,
        num_epochs=num_epochs,
        seed=seed,
        init="",
        num_watched=0,
        num_workers=0,
        tracker="",
    )


def train_all(
    trainings: Sequence[Training],
    load: Load,
    folder: Path,
    *,
    recipe: TrainOptions,
    num_epochs: int,
    num_workers: int,
    progress: Callable[[Training, float], None],
) -> Generator[tuple[Training, dict[str, Any]], None, None]:
    """Yield each training with its columns of `fidelity.csv`, as they end; ending the iteration ends all workers.

    Args:
        folder: holds a folder a training; one that is there is continued. `discard` removes it.
        progress: called with a training under way and the share of it that is done.

    Raises:
        UserError: a training failed, or a worker was killed.
    """
    queue = list(reversed(trainings))
    under_way: dict[Connection, Training] = {}
    with _workers(min(num_workers, len(trainings)), _Work(load, folder, recipe, num_epochs)) as connections:
        for connection in connections:
            _send_next(connection, queue, under_way)
        while under_way:
            for ready in wait(list(under_way)):
                connection = cast(Connection, ready)  # what is waited for is what is given
                training = under_way[connection]
                kind, content = _receive(connection, training)
                if kind == "progress":
                    progress(training, content)
                    continue
                del under_way[connection]
                if kind == "failed":
                    raise UserError(f"training {training.folder_name} alone: {content}")
                yield training, content
                _send_next(connection, queue, under_way)


def discard(training: Training, folder: Path) -> None:
    """Delete the weights of a training that has its row."""
    with suppress(FileNotFoundError):
        shutil.rmtree(folder / training.folder_name)


class _Work:
    """What a worker does; its arguments travel to the new process."""

    def __init__(self, load: Load, folder: Path, recipe: TrainOptions, num_epochs: int):
        self._load, self._folder, self._recipe, self._num_epochs = load, folder, recipe, num_epochs

    def __call__(self, connection: Connection) -> None:
        torch.set_num_threads(1)
        try:
            data, space = self._load()
            while (training := connection.recv()) is not None:
                connection.send(("done", self._train(training, data, space, connection)))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return  # the command was killed; what it trained continues from its checkpoint
        except (UserError, SpaceError) as error:
            connection.send(("failed", str(error)))

    def _train(self, training: Training, data: ImageData, space: SearchSpace, connection: Connection) -> dict[str, Any]:
        def report(done: float, total: float, message: str = "") -> None:
            connection.send(("progress", done / total))

        folder = self._folder / training.folder_name
        options = standalone_options(self._recipe, num_epochs=self._num_epochs, seed=training.seed)
        alone = FixedSpace(space, training.member.architecture)
        train_supernet(alone, data, folder, options=options, progress=report)
        about = json.loads((folder / "supernet.json").read_text(encoding="utf-8"))
        accuracy = about["accuracy"]["largest"]
        return {
            "epochs": self._num_epochs,
            "standalone_validation_pct": accuracy["validation_pct"],
            "standalone_test_pct": accuracy["test_pct"],
            "seconds": round(about["seconds"], 1),
        }


@contextmanager
def _workers(count: int, work: _Work) -> Iterator[list[Connection]]:
    """Start processes, and leave none behind."""
    context = multiprocessing.get_context("spawn")  # torch's threads don't survive a fork
    connections: list[Connection] = []
    processes: list[SpawnProcess] = []
    try:
        with _inherited_by_workers():
            for _ in range(count):
                ours, theirs = context.Pipe()
                process = context.Process(target=work, args=(theirs,), daemon=True)
                process.start()
                theirs.close()  # so that reading ours ends when the worker does
                connections.append(ours)
                processes.append(process)
        yield connections
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(GRACE_S)
            if process.exitcode is None:
                process.kill()
                process.join()
        for connection in connections:
            connection.close()


@contextmanager
def _inherited_by_workers() -> Iterator[None]:
    """What processes started in the block take over: they leave Ctrl-C, which a terminal sends to all, to this one, and
    don't repeat what torch says about its own code."""
    variable, before = "PYTHONWARNINGS", os.environ.get("PYTHONWARNINGS")
    handler = signal.getsignal(signal.SIGINT)
    is_main_thread = threading.current_thread() is threading.main_thread()  # others may not change handlers
    os.environ[variable] = ",".join([*([before] if before else []), "ignore::FutureWarning:torch.jit._script"])
    if is_main_thread:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        if is_main_thread:
            signal.signal(signal.SIGINT, handler)
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def _send_next(connection: Connection, queue: list[Training], under_way: dict[Connection, Training]) -> None:
    training = queue.pop() if queue else None
    if training is not None:
        under_way[connection] = training
    with suppress(BrokenPipeError):  # of a worker that ended; receiving tells
        connection.send(training)


def _receive(connection: Connection, training: Training) -> tuple[str, Any]:
    try:
        kind, content = connection.recv()
    except (EOFError, ConnectionResetError):
        raise UserError(
            f"the worker that trained {training.folder_name} ended, for want of memory or by the error above; the same "
            "command continues, with fewer --workers if need be"
        ) from None
    return kind, content
