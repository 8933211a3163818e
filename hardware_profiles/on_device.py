"""Measures the models in this folder on the device it runs on, and writes result.json. It is the run.py of a bundle.

    python3 run.py

Needs Python 3.10 or newer, numpy and onnxruntime, nothing else; it reads and writes in its own folder only. However it
is interrupted, the same command continues with what was measured. Its timing is that of `nas profile`: the folder
hardware_profiles/ beside it holds the modules of the package that do it, unchanged.
"""

import argparse
import base64
import hashlib
import json
import math
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

if sys.version_info < (3, 10):  # noqa: UP036 (the package needs a newer one, this file doesn't)
    sys.exit(f"run.py: this is Python {platform.python_version()}; start it with Python 3.10 or newer")

try:
    import numpy as np

    from hardware_profiles.device import describe_device
    from hardware_profiles.errors import ProfileError
    from hardware_profiles.loading import MIN_ROUNDS, Loaded, Model, load_models, noise
    from hardware_profiles.measure import Sampler, choose_loops, take_rounds
    from hardware_profiles.probes import Probe, exact_weight_bits
    from hardware_profiles.runtimes.onnx_runtime import OnnxRuntime
    from hardware_profiles.sealed import BUNDLE, RESULT, checksum, read_sealed, write_sealed
except ImportError as missing:
    sys.exit(f"run.py: {missing}; install what it needs with: {sys.executable} -m pip install numpy onnxruntime")

INTERRUPTED = "interrupted; the same command continues with what was measured"


def main() -> None:
    """Read the options and measure: exits with 0, with 2 after an error told in one line, with 130 when interrupted."""
    parser = argparse.ArgumentParser(description="Measure the models in this folder and write result.json.")
    parser.add_argument("--threads", type=int, help="threads one run of a model may use")
    parser.add_argument("--provider", help="ONNX Runtime's execution provider, such as CPU, XNNPACK or CUDA")
    parser.add_argument("--budget", type=float, help="seconds that measuring may take")
    options = parser.parse_args()
    folder = Path(__file__).resolve().parent
    try:
        with _alone(folder):
            measure_bundle(folder, num_threads=options.threads, device=options.provider, budget_s=options.budget)
    except ProfileError as error:
        sys.exit(_failed(str(error), 2))
    except OSError as error:
        sys.exit(_failed(f"{error.filename or 'output'}: {error.strerror}", 2))
    except KeyboardInterrupt:
        sys.exit(_failed(INTERRUPTED, 130))


def measure_bundle(folder: Path, *, num_threads: int | None, device: str | None, budget_s: float | None) -> None:
    """Measure what the manifest in `folder` lists; what isn't given is as the manifest says.

    Raises:
        ProfileError: a file is damaged, or the runtime can't run what has to run.
    """
    result = folder / "result.json"
    if result.exists():
        _say("result.json is there already; to measure anew, remove it and rounds.jsonl")
        return
    manifest = read_sealed(folder / "manifest.json", BUNDLE, way_out="copy the bundle again")
    _check_files(folder, manifest)
    runtime = OnnxRuntime(
        num_threads=manifest["num_threads"] if num_threads is None else num_threads,
        device=manifest["runtime_device"] if device is None else device,
    )
    target = {
        "bundle": checksum(manifest),
        "device": asdict(describe_device()),
        "runtime_version": runtime.version,
        "runtime_device": runtime.device,
        "num_threads": runtime.num_threads,
    }
    journal = _Journal(folder / "rounds.jsonl")
    _take(folder, manifest, runtime, target, journal, manifest["budget_s"] if budget_s is None else budget_s)
    _classify(folder, manifest, runtime, journal)
    content = {
        **journal.lines[0],
        "device": {**target["device"], "flags": list(target["device"]["flags"])},
        "rounds": [line["round"] for line in journal.lines if "round" in line],
        "classes": [line["classes"] for line in journal.lines if "classes" in line],
        "seconds": max(line.get("elapsed_s", 0.0) for line in journal.lines),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),  # noqa: UP017 (Python 3.10)
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "onnxruntime": runtime.version},
        "manifest": manifest,
    }
    write_sealed(result, RESULT, content)
    _say(f"done: {len(content['rounds'])} rounds over {len(content['timed'])} models; take {result} back")


def _take(
    folder: Path,
    manifest: dict[str, Any],
    runtime: OnnxRuntime,
    target: dict[str, Any],
    journal: "_Journal",
    budget_s: float,
) -> None:
    """Rounds over all models that there is time for, added to those of the journal."""
    start_s = time.perf_counter()
    target = json.loads(json.dumps(target))  # as it is read back
    begun = journal.lines[0] if journal.lines else None
    if begun is not None:
        changed = [name for name in target if begun[name] != target[name]]
        if changed:
            raise ProfileError(
                f"rounds.jsonl was begun with another {', '.join(changed)}; run it as before, or remove rounds.jsonl"
            )
    bits, refused = _weight_bits(folder, manifest, runtime) if begun is None else (0, begun["refused"])
    limit_s = budget_s if begun is None and manifest["kind"] == "profile" else math.inf
    timed, loaded = _load(folder, manifest, runtime, refused, limit_s, None if begun is None else begun["timed"])
    samplers = [loaded.empty, *(sampler for sampler in (*loaded.networks, *loaded.rows) if sampler is not None)]
    loops = _warm_up(samplers)
    if begun is None:
        elapsed_s = time.perf_counter() - start_s
        begun = {**target, "timed": timed, "loops": loops, "refused": loaded.refused, "weight_bits": bits}
        journal.append({**begun, "elapsed_s": elapsed_s})
    if timed != begun["timed"]:
        raise ProfileError("models that ran before don't load now; remove rounds.jsonl to begin anew")
    if manifest["kind"] == "front" and loaded.refused:
        raise ProfileError(f"not every model runs here: {loaded.refused}; try another --provider")
    _rounds(samplers, begun["loops"], journal, budget_s)


def _rounds(samplers: list[Sampler], loops: list[int], journal: "_Journal", budget_s: float) -> None:
    before_s = max(line.get("elapsed_s", 0.0) for line in journal.lines)
    num_before = sum("round" in line for line in journal.lines)
    if num_before >= MIN_ROUNDS and before_s >= budget_s:
        return
    start_s = time.perf_counter()
    left_s = budget_s - before_s
    for index, taken in enumerate(
        take_rounds(samplers, loops, budget_s=left_s, min_rounds=MIN_ROUNDS, num_before=num_before)
    ):
        elapsed_s = before_s + time.perf_counter() - start_s
        journal.append({"round": [float(f"{second:.5g}") for second in taken], "elapsed_s": elapsed_s})
        _progress(f"round {num_before + index + 1}, {elapsed_s:.0f} of {budget_s:.0f} s")


def _load(
    folder: Path,
    manifest: dict[str, Any],
    runtime: OnnxRuntime,
    refused: dict[str, str],
    budget_s: float,
    chosen: list[int] | None,
) -> tuple[list[int], Loaded]:
    """Positions, among networks and rows together, of the models to time, and their samplers."""
    entries = [*manifest["networks"], *manifest["rows"]]
    indices = list(range(len(entries))) if chosen is None else chosen

    def make(index: int) -> Model:
        _progress(f"loading model {index + 1} of {len(entries)}")
        return _model(folder, manifest, entries[index])

    num_networks = len(manifest["networks"])
    loaded = load_models(
        runtime,
        empty=_model(folder, manifest, manifest["empty"]),
        networks=[partial(make, index) for index in indices if index < num_networks],
        rows=[partial(make, index) for index in indices if index >= num_networks],
        budget_s=budget_s,
        refused=refused,
    )
    samplers = [*loaded.networks, *loaded.rows]
    return [index for index, sampler in zip(indices, samplers) if sampler is not None], loaded  # noqa: B905


def _warm_up(samplers: list[Sampler]) -> list[int]:
    """Calls in a sample of each."""
    loops = []
    for index, sampler in enumerate(samplers):
        _progress(f"warm-up {index + 1} of {len(samplers)}")
        loops.append(choose_loops(sampler))
    return loops


def _weight_bits(folder: Path, manifest: dict[str, Any], runtime: OnnxRuntime) -> tuple[int, dict[str, str]]:
    """The most bits of int8 weights that are computed exactly here, and precisions that never are."""
    if not manifest["probes"]:
        return 8, {}
    bits, refused = [8], {}
    with np.load(folder / "probes.npz") as expected:
        for precision, forms in manifest["probes"].items():
            probes = [
                (form["bits"], [_probe(folder, manifest, file, expected) for file in form["files"]]) for form in forms
            ]
            try:
                found = exact_weight_bits(runtime, probes)
            except ProfileError as error:
                refused[precision] = str(error)
                continue
            if found is None:
                refused[precision] = "products of 8-bit integers are added up wrongly here"
            else:
                bits.append(found)
    return min(bits), refused


def _probe(folder: Path, manifest: dict[str, Any], file: str, expected: Mapping[str, np.ndarray]) -> Probe:
    return Probe(folder / file, _input(manifest, file), expected[Path(file).stem])


def _classify(folder: Path, manifest: dict[str, Any], runtime: OnnxRuntime, journal: "_Journal") -> None:
    """Top-1 classes that every network gives for the images of the bundle, if it has any."""
    if "images" not in manifest:
        return
    images_BCHW = np.load(folder / "images.npy", mmap_mode="r")
    mean, std = (np.array(manifest["images"][name], np.float32).reshape(-1, 1, 1) for name in ("mean", "std"))
    num_before = sum("classes" in line for line in journal.lines)
    for index, entry in list(enumerate(manifest["networks"]))[num_before:]:
        session, (name, shape) = runtime.load(folder / entry["file"]), _input(manifest, entry["file"])
        found = []
        for start in range(0, len(images_BCHW), shape[0]):
            part_BCHW = (images_BCHW[start : start + shape[0]] - 255 * mean) / (255 * std)
            filled = np.concatenate([part_BCHW, np.repeat(part_BCHW[-1:], shape[0] - len(part_BCHW), axis=0)])
            found.append(session.run({name: filled.astype(np.float32)})[0][: len(part_BCHW)].argmax(axis=1))
            _progress(f"network {index + 1} of {len(manifest['networks'])}: image {start} of {len(images_BCHW)}")
        classes = base64.b64encode(np.concatenate(found).astype("<u2").tobytes()).decode()
        journal.append({"classes": classes})


def _model(folder: Path, manifest: dict[str, Any], entry: dict[str, Any]) -> Model:
    name, shape = _input(manifest, entry["file"])
    return Model(folder / entry["file"], {name: noise(shape)}, entry["precisions"])


def _input(manifest: dict[str, Any], file: str) -> tuple[str, tuple[int, ...]]:
    entry = manifest["inputs"][file]
    return entry["name"], tuple(entry["shape"])


def _check_files(folder: Path, manifest: dict[str, Any]) -> None:
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise ProfileError(f"{name} is missing or damaged; copy the bundle again")


class _Journal:
    """Lines of JSON in a file, each on the disk before the next; half a line that a power cut left is cut off."""

    def __init__(self, path: Path) -> None:
        self.lines: list[dict[str, Any]] = []
        self._path, end = path, 0
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
            if not line.endswith(b"\n"):
                break
            self.lines.append(json.loads(line))
            end += len(line)
        if path.exists():
            os.truncate(path, end)

    def append(self, line: dict[str, Any]) -> None:
        """Add a line."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, separators=(",", ":")) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.lines.append(line)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Refuse to run beside another run.py in the folder, which would disturb the timing; Windows doesn't tell."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ProfileError("another run.py is at work in this folder; wait for it, or end it") from None
        yield


_last_shown_s = -math.inf


def _progress(text: str) -> None:
    """On a terminal one line that changes; elsewhere a line every ten seconds at most."""
    global _last_shown_s
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    elif time.monotonic() - _last_shown_s >= 10:
        _last_shown_s = time.monotonic()
        print(text, file=sys.stderr, flush=True)


def _say(text: str) -> None:
    print(("\r\033[K" if sys.stderr.isatty() else "") + text, file=sys.stderr, flush=True)


def _failed(text: str, code: int) -> int:
    _say(f"run.py: {text}")
    return code


if __name__ == "__main__":
    main()
