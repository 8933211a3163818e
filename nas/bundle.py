"""A bundle: a folder with models and one script, to measure them where this project isn't installed."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hardware_profiles
from hardware_profiles.device import DeviceInfo
from hardware_profiles.errors import ProfileError
from hardware_profiles.measure import LatencyStats, summarise
from hardware_profiles.sealed import BUNDLE, RESULT, checksum, read_sealed, write_sealed
from nas.errors import UserError

MODULES = (
    "__init__.py", "device.py", "errors.py", "loading.py", "measure.py", "probes.py", "runtimes/__init__.py",
    "runtimes/onnx_runtime.py", "runtimes/runtime.py", "sealed.py",
)  # fmt: skip
"""Of `hardware_profiles`, all that its `on_device.py` imports."""

WAY_OUT = "copy result.json from the device again, or start run.py there again"


class BundleFiles:
    """Files of a bundle in the making."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checksums: dict[str, str] = {}
        """SHA-256 by path in the bundle."""
        self.inputs: dict[str, dict[str, Any]] = {}
        """Name and shape of each model's input, by path."""

    def add(self, name: str, content: bytes) -> None:
        """Write a file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.checksums[name] = hashlib.sha256(content).hexdigest()

    def add_model(self, model: bytes, name: str, shape: tuple[int, ...]) -> str:
        """Write a model whose input has this name and shape, unless an equal one is there; returns its path."""
        path = f"models/{hashlib.sha256(model).hexdigest()[:16]}.onnx"
        if path not in self.checksums:
            self.add(path, model)
            self.inputs[path] = {"name": name, "shape": list(shape)}
        return path


def write_bundle(folder: Path, fill: Callable[[BundleFiles], dict[str, Any]]) -> str:
    """Write a bundle, whole or not at all; returns its identity.

    Args:
        fill: writes models and whatever else travels, and returns the manifest but for the files.

    Raises:
        UserError: something else is in the folder; nothing is overwritten.
    """
    if folder.exists() and not (folder.is_dir() and ((folder / "manifest.json").exists() or not any(folder.iterdir()))):
        raise UserError(f"'{folder}' isn't empty and holds no bundle; give another folder")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    files, package = BundleFiles(part), Path(hardware_profiles.__file__).parent
    for module in MODULES:
        files.add(f"hardware_profiles/{module}", (package / module).read_bytes())
    files.add("run.py", (package / "on_device.py").read_bytes())
    manifest = fill(files)
    manifest |= {"inputs": files.inputs, "files": files.checksums}
    write_sealed(part / "manifest.json", BUNDLE, manifest)
    try:
        _place(part, folder, checksum(manifest))
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return checksum(manifest)


def _place(part: Path, folder: Path, identity: str) -> None:
    """Let `part` become `folder`, unless the same bundle is there."""
    if not (folder / "manifest.json").exists():
        part.replace(folder)
        return
    try:
        there = checksum(read_sealed(folder / "manifest.json", BUNDLE, way_out="remove the folder, or give another"))
    except ProfileError as error:
        raise UserError(str(error)) from None
    if there != identity:
        raise UserError(f"'{folder}' holds another bundle; nothing was overwritten, give another folder")


def read_result(path: Path, kind: str, *, min_rounds: int) -> dict[str, Any]:
    """What a device measured on a bundle of this kind.

    Raises:
        UserError, ProfileError: the file is truncated, altered, of another kind or version, or has too few rounds.
    """
    content = read_sealed(path, RESULT, way_out=WAY_OUT)
    if content["bundle"] != checksum(content["manifest"]):
        raise UserError(f"'{path}' is of another bundle than it says; {WAY_OUT}")
    found = content["manifest"]["kind"]
    if found != kind:
        verbs = {"profile": "nas profile", "front": "nas verify"}
        raise UserError(f"'{path}' was measured for `{verbs[found]}`, not `{verbs[kind]}`; import it there")
    if len(content["rounds"]) < min_rounds:
        raise UserError(f"'{path}' has {len(content['rounds'])} rounds, fewer than {min_rounds}; {WAY_OUT}")
    return content


def latencies(content: dict[str, Any]) -> tuple[LatencyStats, list[LatencyStats | None]]:
    """Of the empty model, and of networks and rows in the manifest's order; None for those that weren't timed."""
    call, *timed = summarise(content["rounds"], content["loops"])
    by_index = dict(zip(content["timed"], timed, strict=True))
    num_models = len(content["manifest"]["networks"]) + len(content["manifest"]["rows"])
    return call, [by_index.get(index) for index in range(num_models)]


def device_of(content: dict[str, Any]) -> DeviceInfo:
    """What a result was measured on."""
    return DeviceInfo(**{**content["device"], "flags": tuple(content["device"]["flags"])})
