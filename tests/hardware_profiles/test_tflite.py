"""Conversion to .tflite: one worker, kept files, errors in a line. onnx2tf itself is replaced here."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper

from hardware_profiles.errors import ProfileError
from hardware_profiles.runtimes import tflite
from hardware_profiles.runtimes.onnx_runtime import OnnxRuntime
from hardware_profiles.runtimes.tflite import (
    TO_NCHW,
    TO_NHWC,
    ConversionError,
    Converter,
    channels_last,
    find_converter,
)

ONNX2TF = """
import os, sys
from pathlib import Path
import onnx

def convert(*, input_onnx_file_path, output_folder_path, **options):
    name = onnx.load(input_onnx_file_path).graph.name
    with (Path(__file__).parent / "converted").open("a") as file:
        print(name, file=file)
    print("noise on standard output")
    os.write(1, b"and on its descriptor")
    if name == "raises":
        raise ValueError("operator Abacus isn't\\nsupported")
    if name == "exits":
        print("\\033[31mERROR:\\033[0m operator Abacus isn't supported")
        sys.exit(1)
    if name == "dies":
        os._exit(9)
    if name != "makes nothing":
        (Path(output_folder_path) / "model_float32.tflite").write_text(f"tflite of {name}")
"""
PYTHON = """#!/bin/sh
exec {python} -I -c 'import runpy, sys
sys.path.insert(0, "{packages}")
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")' "$@"
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HYBRIDNAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The Python of an environment whose onnx2tf writes a line for each model."""
    return make_environment(tmp_path / "environment", version="9.1")


def make_environment(folder: Path, *, version: str) -> Path:
    packages, programs = folder / "packages", folder / "bin"
    (packages / f"onnx2tf-{version}.dist-info").mkdir(parents=True)
    (packages / f"onnx2tf-{version}.dist-info" / "METADATA").write_text(f"Name: onnx2tf\nVersion: {version}\n")
    (packages / "onnx2tf.py").write_text(ONNX2TF)
    (packages / "onnxsim.py").write_text("def simplify(model):\n    return model, True\n")
    programs.mkdir()
    for name, content in {
        "python": PYTHON.format(python=sys.executable, packages=packages),
        "onnx2tf": "#!/bin/sh\n",
    }.items():
        (programs / name).write_text(content)
        (programs / name).chmod(0o755)
    return programs / "python"


def converted(python: Path) -> list[str]:
    return (python.parent.parent / "packages" / "converted").read_text().split("\n")[:-1]


def model(name: str) -> bytes:
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, [1, 8]) for end in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], name, ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def test_a_model_is_converted_once(python: Path) -> None:
    converter = Converter(python)
    assert converter.version == "9.1"
    paths = [converter.convert(model(name)) for name in ("a", "b", "a")]
    assert [path.read_text() for path in paths] == ["tflite of a", "tflite of b", "tflite of a"]
    assert Converter(python).convert(model("b")) == paths[1]
    assert converted(python) == ["a", "b"]


def test_another_version_of_onnx2tf_converts_anew(python: Path, tmp_path: Path) -> None:
    newer = make_environment(tmp_path / "newer", version="9.2")
    assert Converter(python).convert(model("a")) != Converter(newer).convert(model("a"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("raises", "^ValueError: operator Abacus isn't supported$"),
        ("exits", "^ERROR: operator Abacus isn't supported$"),
        ("makes nothing", "^FileNotFoundError: "),
    ],
)
def test_a_model_that_is_refused_is_so_in_one_line_and_the_next_is_converted(
    name: str, reason: str, python: Path
) -> None:
    converter = Converter(python)
    with pytest.raises(ConversionError, match=reason) as caught:
        converter.convert(model(name))
    assert "\n" not in str(caught.value)
    assert converter.convert(model("a")).read_text() == "tflite of a"


def test_a_worker_that_died_is_noticed_and_replaced_with_the_next_model(python: Path) -> None:
    converter = Converter(python)
    with pytest.raises(ProfileError, match=r"onnx2tf stopped while it converted a model \(exit code 9\); .* try again"):
        converter.convert(model("dies"))
    assert converter.convert(model("a")).read_text() == "tflite of a"


def test_a_worker_that_was_killed_between_two_models_is_replaced(python: Path) -> None:
    converter = Converter(python)
    converter._worker._process.kill()
    converter._worker._process.wait()
    assert converter.convert(model("a")).read_text() == "tflite of a"


def test_the_answer_to_an_interrupted_call_is_not_taken_for_the_next_one(
    python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converter = Converter(python)

    def interrupt(doing: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(converter._worker, "_read", interrupt)
        with pytest.raises(KeyboardInterrupt):
            converter.convert(model("a"))
    assert converter.convert(model("b")).read_text() == "tflite of b"
    assert converted(python) == ["a", "b"]


def test_an_environment_that_is_broken_is_named(python: Path) -> None:
    python.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(ProfileError, match=r"onnx2tf stopped while it started \(exit code 3\); .* make litert"):
        Converter(python)
    python.unlink()
    with pytest.raises(ProfileError, match="onnx2tf doesn't start: .*python.*; make litert"):
        Converter(python)


def test_a_cache_that_cannot_be_written_is_named(python: Path, cache: Path) -> None:
    converter = Converter(python)
    (cache / "tflite").write_text("a file in the way")
    with pytest.raises(ProfileError, match="can't keep a model in .*; set HYBRIDNAS_CACHE to another folder"):
        converter.convert(model("a"))


def test_the_checkouts_environment_comes_before_the_path(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{python.parent}{os.pathsep}/bin")
    monkeypatch.setattr(tflite, "ENVIRONMENT", tmp_path / "checkout")
    assert find_converter().version == "9.1"
    make_environment(tmp_path / "checkout", version="9.2")
    assert find_converter().version == "9.2"
    assert find_converter() is find_converter()


def test_a_missing_onnx2tf_is_named_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tflite, "ENVIRONMENT", tmp_path / "checkout")
    with pytest.raises(ProfileError, match="onnx2tf, which isn't there; make litert, or uv tool install onnx2tf"):
        find_converter()


INTERRUPTED = """
import sys, time
from pathlib import Path
from hardware_profiles.runtimes.tflite import Converter
converter = Converter(Path(sys.argv[1]))
print("started", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_program_that_is_interrupted_or_killed_leaves_nothing_behind(
    number: signal.Signals, python: Path, cache: Path
) -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(python)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"started\n"
        started = psutil.Process(program.pid).children(recursive=True)
        assert started
        program.send_signal(number)
        program.communicate(timeout=30)
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not alive
    assert not list(cache.iterdir())


def test_images_are_in_nhwc_in_and_out_and_everything_else_stays() -> None:
    image, rows = [1, 3, 4, 5], [1, 8]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, s) for name, s in (("x", image), ("r", rows))]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, s)
        for name, s in (("y", image), ("z", image), ("s", rows))
    ]
    nodes = [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Sub", ["y", "x"], ["z"]),  # an output that another one is made of
        helper.make_node("Neg", ["r"], ["s"]),
    ]
    graph = helper.make_graph(nodes, "images", inputs, outputs)
    original = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    changed = channels_last(original)
    onnx.checker.check_model(changed, full_check=True)
    rng = np.random.default_rng(0)
    x, r = (rng.standard_normal(shape, dtype=np.float32) for shape in (image, rows))
    expected = OnnxRuntime().load(original.SerializeToString()).run({"x": x, "r": r})
    y, z, s = OnnxRuntime().load(changed.SerializeToString()).run({"x": x.transpose(TO_NHWC), "r": r})
    for found, wanted in zip((y.transpose(TO_NCHW), z.transpose(TO_NCHW), s), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
