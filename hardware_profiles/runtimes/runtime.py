"""The interface of a runtime."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from hardware_profiles.errors import ProfileError
from hardware_profiles.measure import Sampler, timed


class Session(ABC):
    """A model that a runtime has loaded and optimised."""

    @abstractmethod
    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The model's outputs, in its order.

        Raises:
            ProfileError: names, shapes or types aren't those of the model's inputs.
        """

    def run_all(self, batches: Sequence[Mapping[str, np.ndarray]]) -> list[list[np.ndarray]]:
        """`run` for each of the batches; a runtime on the other side of a wire sends them together."""
        return [self.run(inputs) for inputs in batches]

    @abstractmethod
    def runner(self, inputs: Mapping[str, np.ndarray]) -> Callable[[], object]:
        """A callable that runs the model on `inputs` with as little around it as the runtime allows, for timing.

        What it returns is unspecified. Raises what `run` raises, before anything is timed.
        """

    def sampler(self, inputs: Mapping[str, np.ndarray]) -> Sampler:
        """Times runs of the model on `inputs`. A runtime on the other side of a wire takes the time over there.

        Raises what `run` raises, before anything is timed.
        """
        return timed(self.runner(inputs))


class Runtime(ABC):
    """Loads ONNX models on this machine; final classes take `num_threads` and `device` only.

    Raises:
        ProfileError: on construction, when it has no such device or `num_threads` is below one.
    """

    name: str
    """The name in `RUNTIMES`, or whatever identifies it in a profile."""
    version: str
    """The version of the library behind it."""
    precisions: tuple[str, ...]
    """Names of the precisions a block may have here."""
    signed_activations: bool = False
    """Does static int8 run faster when activations of both signs are signed integers, symmetric about zero?"""
    num_threads: int
    """Threads one run may use."""
    device: str = ""
    """What of this machine runs the models, as the runtime calls it: CPU, CUDA, ...; empty where there is no choice."""

    @abstractmethod
    def __init__(self, *, num_threads: int = 1, device: str = "") -> None:
        """`device` in any case of letters; the processor when it is empty."""

    @abstractmethod
    def load(self, model: bytes | str | Path) -> Session:
        """Load an ONNX model from its bytes or its file.

        Raises:
            ProfileError: the file is missing, or the runtime refuses the model.
        """


def check_threads(num_threads: int) -> int:
    """`num_threads`; ProfileError when it is below one."""
    if num_threads < 1:
        raise ProfileError(f"num_threads={num_threads} must be at least 1; give the threads one run may use")
    return num_threads
