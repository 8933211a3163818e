"""Run by the Python of onnx2tf's environment: converts one model for each line on standard input, until that ends.

A line is a number N, which the answer repeats, a line of JSON: `N.onnx` in the given folder became `N.tflite`. Needs
nothing but onnx2tf and what that needs.
"""

import contextlib
import importlib.metadata
import io
import json
import os
import re
import shutil
import sys
from pathlib import Path


def main(folder: Path) -> None:
    """Answer until nobody asks any more, which also is when the one who asked is gone; then remove the folder."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # where libraries print
    # Progress bars wait for the threads that draw them, for most of the time a small model takes.
    sys.modules["tqdm.auto"] = None  # type: ignore[assignment]
    try:
        _say(answers, version=importlib.metadata.version("onnx2tf"))
        for line in sys.stdin:
            _say(answers, number=int(line), error=_convert(folder, int(line)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _say(answers: io.TextIOWrapper, **answer: object) -> None:
    print(json.dumps(answer), file=answers, flush=True)


def _convert(folder: Path, number: int) -> str:
    """What went wrong; empty when the file is there."""
    source, made = folder / "model.onnx", folder / "model_float32.tflite"
    printed = io.StringIO()
    try:
        import onnx
        import onnx2tf
        import onnxsim

        with contextlib.redirect_stdout(printed):
            # In this process, instead of by the command that onnx2tf would start three times.
            model, _ = onnxsim.simplify(onnx.load(folder / f"{number}.onnx"))
            onnx.save(model, source)
            onnx2tf.convert(
                input_onnx_file_path=str(source),
                output_folder_path=str(folder),  # the same each time: its schema is read once a folder, for a second
                keep_shape_absolutely_input_names=[value.name for value in model.graph.input],
                not_use_onnxsim=True,
                verbosity="error",
            )
            made.rename(folder / f"{number}.tflite")
    except SystemExit:  # it printed why
        return _last_line(printed.getvalue())
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _last_line(text: str) -> str:
    lines = re.sub(r"\x1b\[\d*m", "", text).strip().split("\n")
    return lines[-1] or "it doesn't say why"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
