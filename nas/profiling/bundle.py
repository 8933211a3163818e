"""A profile of a device where this project isn't installed: its models go there as a bundle, one file comes back."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from hardware_profiles.loading import MIN_ROUNDS
from hardware_profiles.profile import HardwareProfile
from hardware_profiles.runtimes.onnx_runtime import OnnxRuntime
from nas.bundle import BundleFiles, device_of, latencies, read_result, write_bundle
from nas.errors import UserError
from nas.profiling.assemble import Measurements, assemble_profile
from nas.profiling.features import row_features
from nas.profiling.plan import PlannedNetwork, PlannedRow, ProfilePlan, model_input
from nas.saturation import FORMS, INT8, make_probes
from search_spaces import SearchSpace


def write_profile_bundle(
    plan: ProfilePlan, folder: Path, *, num_threads: int = 1, budget_s: float = 60.0, runtime_device: str = ""
) -> str:
    """Write a plan's models to `folder`, beside a script that measures them under ONNX Runtime; returns its identity.

    Args:
        num_threads, budget_s, runtime_device: what the script does unless it is told otherwise on the device.

    Raises:
        UserError: something else is in the folder.
    """

    def fill(files: BundleFiles) -> dict[str, Any]:
        return {
            "kind": "profile",
            "num_threads": num_threads,
            "budget_s": budget_s,
            "runtime_device": runtime_device,
            "space": plan.space,
            "space_fingerprint": plan.space_fingerprint,
            "batch_size": plan.batch_size,
            "precisions": list(plan.precisions),
            "convolutions": list(plan.convolutions),
            "empty": {"file": _add(files, plan.empty), "precisions": ["fp32"]},
            "networks": [
                {
                    "file": _add(files, network.model),
                    "precisions": network.precisions,
                    "blocks": [list(pair) for pair in network.blocks],
                    "role": network.role,
                }
                for network in plan.networks
            ],
            "rows": [
                {
                    "file": _add(files, row.model),
                    "precisions": [row.precision],
                    "key": row.key,
                    "size_bytes": row.size_bytes,
                    "num_copies": row.num_copies,
                }
                for row in plan.rows
            ],
            "probes": _add_probes(files, [precision for precision in INT8 if precision in plan.precisions]),
        }

    return write_bundle(folder, fill)


def import_profile(path: Path, space: SearchSpace) -> HardwareProfile:
    """The profile of the device that wrote `path`, a bundle's result.json; it is named like the device's processor.

    Raises:
        UserError, ProfileError: the file can't be used, see `read_result`, or is of another search space.
    """
    content = read_result(path, "profile", min_rounds=MIN_ROUNDS)
    manifest = content["manifest"]
    plan = _plan(manifest, space, path)
    call, stats = latencies(content)
    num_networks = len(plan.networks)
    found = Measurements(
        device=device_of(content),
        runtime=OnnxRuntime.name,
        runtime_version=content["runtime_version"],
        runtime_device=content["runtime_device"],
        num_threads=content["num_threads"],
        weight_bits=content["weight_bits"],
        call=call,
        networks=tuple(stats[:num_networks]),
        rows=tuple(stats[num_networks:]),
        refused=content["refused"],
        seconds=content["seconds"],
    )
    profile = assemble_profile(plan, found, name=_slug(found.device.processor))
    return dataclasses.replace(profile, date=content["date"], versions={**profile.versions, **content["versions"]})


def _plan(manifest: dict[str, Any], space: SearchSpace, path: Path) -> ProfilePlan:
    """The plan that a bundle was made of, with empty models: these stayed on the device."""
    if (manifest["space"], manifest["space_fingerprint"]) != (space.name, space.fingerprint):
        raise UserError(
            f"'{path}' is of space '{manifest['space']}', for other channels or classes, or of another version, not of "
            f"'{space.name}' as it is here; give the --space and --data that its bundle was made with"
        )
    specs = {spec.cost_key: spec for spec in space.block_specs()}
    empty = onnx.ModelProto()
    rows = [
        PlannedRow(r["key"], r["precisions"][0], empty, r["size_bytes"], r.get("num_copies", 1), onnx.ModelProto)
        for r in manifest["rows"]  # older bundles have one copy of each block
    ]
    return ProfilePlan(
        space=space.name,
        space_fingerprint=space.fingerprint,
        batch_size=manifest["batch_size"],
        precisions=tuple(manifest["precisions"]),
        convolutions=tuple((kind, p) for kind, p in manifest.get("convolutions", ())),  # older bundles have none
        weight_bits=FORMS[0],
        empty=empty,
        rows=tuple(rows),
        features_RF=row_features([(specs[row.key], row.precision) for row in rows]),
        networks=tuple(
            PlannedNetwork(tuple((key, p) for key, p in network["blocks"]), network["role"], onnx.ModelProto)
            for network in manifest["networks"]
        ),
    )


def _add(files: BundleFiles, model: onnx.ModelProto) -> str:
    return files.add_model(model.SerializeToString(), *model_input(model))


def _add_probes(files: BundleFiles, precisions: list[str]) -> dict[str, list[dict[str, Any]]]:
    """For each of the int8 precisions the files of its probes by bits; what they give goes to probes.npz."""
    expected: dict[str, np.ndarray] = {}
    found: dict[str, list[dict[str, Any]]] = {}
    for precision in precisions:
        for bits in FORMS:
            names = []
            for probe in make_probes([precision], bits):
                names.append(files.add_model(bytes(probe.source), *probe.input))
                expected[Path(names[-1]).stem] = probe.expected
            found.setdefault(precision, []).append({"bits": bits, "files": names})
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **expected)  # type: ignore[arg-type]  # names are those of files, not its parameters
    files.add("probes.npz", buffer.getvalue())
    return found


def _slug(processor: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in processor.lower()).split())
