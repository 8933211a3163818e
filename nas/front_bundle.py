"""A front verified where this project isn't installed: files and images go there as a bundle, one file comes back."""

import base64
import io
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from hardware_profiles.loading import MIN_ROUNDS
from hardware_profiles.profile import HardwareProfile
from hardware_profiles.runtimes.onnx_runtime import OnnxRuntime
from nas.bundle import BundleFiles, device_of, latencies, read_result, write_bundle
from nas.data import ImageData
from nas.errors import UserError
from nas.profiling.plan import empty_model, model_input
from nas.stages import hash_file
from nas.verify import TIMING_S_PER_MODEL, FileResult


def limited(data: ImageData, num_images: int | None) -> ImageData:
    """The data set with at most so many evenly spaced validation and test images each."""
    if num_images is None:
        return data
    return replace(data, validation=data.validation.spread(num_images), test=data.test.spread(num_images))


def write_front_bundle(
    folder: Path,
    models: Path,
    indices: Sequence[int],
    data: ImageData,
    profile: HardwareProfile,
    *,
    num_images: int | None = None,
) -> str:
    """Write exported models and the images they are judged by; returns the bundle's identity.

    Args:
        models: where the models are, each in a folder named by its index.
        data: images of its validation and test splits travel, and nothing of their classes.
        num_images: at most so many of each split.

    Raises:
        UserError: the profile isn't of ONNX Runtime, or something else is in the folder.
    """
    if profile.runtime != OnnxRuntime.name:
        raise UserError(f"the profile is of {profile.runtime}; a bundle's script runs {OnnxRuntime.name} only")
    seen = limited(data, num_images)

    def fill(files: BundleFiles) -> dict[str, Any]:
        networks = [_add(files, models, index) for index in indices]
        nothing = empty_model(files.inputs[networks[0]["file"]]["shape"])
        images = io.BytesIO()
        np.save(images, np.concatenate([split.images_BCHW.numpy() for split in (seen.validation, seen.test)]))
        files.add("images.npy", images.getvalue())
        return {
            "kind": "front",
            "num_threads": profile.num_threads,
            "budget_s": TIMING_S_PER_MODEL * (len(networks) + 1),
            "runtime_device": profile.runtime_device,
            "data": data.fingerprint,
            "images": {"mean": list(data.mean), "std": list(data.std), "num_images": num_images},
            "empty": {
                "file": files.add_model(nothing.SerializeToString(), *model_input(nothing)),
                "precisions": ["an empty model"],
            },
            "networks": networks,
            "rows": [],
            "probes": {},
        }

    return write_bundle(folder, fill)


def import_front(
    path: Path, models: Path, data: ImageData, profile: HardwareProfile
) -> tuple[dict[int, FileResult], dict[str, Any], ImageData]:
    """What a device found out about exported models, what it is, and the data with the images that it saw.

    Raises:
        UserError, ProfileError: the file can't be used, see `read_result`; or it is of another device than the profile,
            of other data, or of models that were exported anew since.
    """
    content = read_result(path, "front", min_rounds=MIN_ROUNDS)
    manifest, device = content["manifest"], device_of(content)
    for what, found, wanted in (
        ("processor", device.processor, profile.device.processor),
        ("number of threads", content["num_threads"], profile.num_threads),
        ("execution provider", content["runtime_device"], profile.runtime_device),
        ("data set", manifest["data"], data.fingerprint),
    ):
        if found != wanted:
            raise UserError(f"'{path}' was measured with {what} {found}, the run is for {wanted}; measure its target")
    seen = limited(data, manifest["images"]["num_images"])
    _, stats = latencies(content)
    results = {}
    for network, latency, text in zip(manifest["networks"], stats, content["classes"], strict=True):
        file = models / str(network["index"]) / "model.onnx"
        if not file.is_file() or hash_file(file) != Path(network["file"]).stem:
            raise UserError(f"{file} isn't the model that '{path}' is about; make the bundle again, and measure that")
        if latency is None:
            raise UserError(f"'{path}' has no time for model {network['index']}; start run.py on the device again")
        classes = np.frombuffer(base64.b64decode(text), dtype="<u2").astype(np.int64)
        validation, test = np.split(classes, [len(seen.validation)])
        results[network["index"]] = FileResult(validation=validation, test=test, latency=latency)
    target = {
        "device": asdict(device),
        "runtime": f"{OnnxRuntime.name} {content['runtime_version']}",
        "runtime_device": content["runtime_device"],
        "num_threads": content["num_threads"],
        "batch_size": profile.batch_size,
        "date": content["date"],
        "seconds": content["seconds"],
    }
    return results, target, seen


def _add(files: BundleFiles, models: Path, index: int) -> dict[str, Any]:
    file = models / str(index) / "model.onnx"
    model = onnx.load(file)
    path = files.add_model(file.read_bytes(), *model_input(model))
    return {"file": path, "precisions": [f"model {index}"], "index": index}
