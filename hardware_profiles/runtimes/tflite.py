"""ONNX models as .tflite files, made by onnx2tf, a tool in an environment of its own."""

import functools
import hashlib
import json
import shutil
import subprocess
import tempfile
import threading
import weakref
from itertools import count
from pathlib import Path
from typing import IO, Any

import onnx
from onnx import helper

from hardware_profiles.errors import ProfileError
from hardware_profiles.runtimes.cache import cache_folder

WORKER = Path(__file__).with_name("tflite_worker.py")
ENVIRONMENT = Path(__file__).parents[2] / ".onnx2tf"
"""Of a checkout, made by `make litert`; onnx2tf wants a newer Python and other versions than we do."""

TO_NHWC, TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
"""Orders of axes: of an array (B, C, H, W) for (B, H, W, C), and back."""


class ConversionError(Exception):
    """Why a model can't be converted, in onnx2tf's words."""


def find_converter() -> "Converter":
    """One converter for the process: of `ENVIRONMENT`, else of the command `onnx2tf` on the path.

    Raises:
        ProfileError: there is none, or it doesn't start.
    """
    command = shutil.which("onnx2tf", path=str(ENVIRONMENT / "bin")) or shutil.which("onnx2tf")
    if command is None:
        raise ProfileError(
            "the runtime 'litert' converts models by onnx2tf, which isn't there; make litert, or uv tool install "
            "onnx2tf (Python 3.12 or newer)"
        )
    return _converter(Path(command).resolve().with_name("python"))


@functools.cache
def _converter(python: Path) -> "Converter":
    return Converter(python)


class Converter:
    """Converts models one by one in a worker, a process of `python`, and keeps the files.

    The worker ends with this process, or when this is collected; one that stopped is replaced with the next model.

    Raises:
        ProfileError: it doesn't start, or the cache can't be written.
    """

    def __init__(self, python: Path) -> None:
        self._python, self._lock = python, threading.Lock()
        self._worker = _Worker(python)
        self.version = self._worker.version

    def convert(self, model: bytes) -> Path:
        """The .tflite file of an ONNX model whose images are in NHWC (`channels_last`), in the cache.

        Raises:
            ConversionError: the model can't be converted.
            ProfileError: the worker stopped, or the cache can't be written.
        """
        content = hashlib.sha256(b"".join((self.version.encode(), WORKER.read_bytes(), model))).hexdigest()
        kept = cache_folder() / "tflite" / f"{content}.tflite"
        with self._lock:
            if not kept.is_file():
                if not self._worker.alive:
                    self._worker = _Worker(self._python)
                self._worker.convert(model, kept)
        return kept


class _Worker:
    """A process that runs `WORKER`, and the folder in which they exchange files."""

    def __init__(self, python: Path) -> None:
        self._numbers = count(1)
        try:
            cache_folder().mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(dir=cache_folder(), prefix="onnx2tf-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            # Isolated: modules beside the worker, and those of our own environment, aren't its to import. In a session
            # of its own, so that Ctrl-C is this process's to handle.
            self._process = subprocess.Popen(
                [python, "-I", WORKER, self._folder],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise ProfileError(f"onnx2tf doesn't start: {error}; make litert makes it an environment") from error
        weakref.finalize(self, _end, self._process)
        self.version = str(self._read("started")["version"])

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def convert(self, model: bytes, target: Path) -> None:
        """Write the model to `target`; raises what `Converter.convert` raises."""
        number = next(self._numbers)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            (self._folder / f"{number}.onnx").write_bytes(model)
            stdin = _pipe(self._process.stdin)
            stdin.write(b"%d\n" % number)
            stdin.flush()
            answer: dict[str, Any] = {}
            while answer.get("number") != number:  # an interrupted call left its answer
                answer = self._read("converted a model")
            if answer["error"]:
                raise ConversionError(" ".join(answer["error"].split()))
            (self._folder / f"{number}.tflite").replace(target)
        except BrokenPipeError as error:
            raise self._stopped("was given a model") from error
        except OSError as error:
            raise ProfileError(
                f"can't keep a model in {str(target.parent)!r}: {error}; set HYBRIDNAS_CACHE to another folder"
            ) from error

    def _read(self, doing: str) -> dict[str, Any]:
        line = _pipe(self._process.stdout).readline()
        if not line:
            raise self._stopped(doing)
        return json.loads(line)

    def _stopped(self, doing: str) -> ProfileError:
        code = self._process.wait()
        return ProfileError(
            f"onnx2tf stopped while it {doing} (exit code {code}); its memory may be full, try again, or install it "
            "anew with make litert"
        )


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # Popen was told to make it
    return stream


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def channels_last(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its images, inputs and outputs of four axes, in NHWC instead of NCHW; their names stay.

    That is what LiteRT's kernels take and give: a converted convolution then has no transpositions at its ends, as it
    has none inside a network.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    inputs, outputs = _images(graph.input), _images(graph.output)
    for node in graph.node:
        node.input[:] = [_inner(name) if name in inputs | outputs else name for name in node.input]
        node.output[:] = [_inner(name) if name in outputs else name for name in node.output]
    before = [helper.make_node("Transpose", [name], [_inner(name)], perm=TO_NCHW) for name in sorted(inputs)]
    after = [helper.make_node("Transpose", [_inner(name)], [name], perm=TO_NHWC) for name in sorted(outputs)]
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    for value in (*graph.input, *graph.output):
        axes = value.type.tensor_type.shape.dim
        if len(axes) == len(TO_NHWC):
            sizes = [axes[axis].dim_value for axis in TO_NHWC]
            for axis, size in zip(axes, sizes, strict=True):
                axis.dim_value = size
    return changed


def _images(values: Any) -> set[str]:
    return {value.name for value in values if len(value.type.tensor_type.shape.dim) == len(TO_NHWC)}


def _inner(name: str) -> str:
    return f"{name}/nchw"
