"""Profiling and verifying where this project isn't installed: by a bundle and its result, or through ssh."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pandas as pd

from hardware_profiles.profile import HardwareProfile
from hardware_profiles.runtimes.onnx_runtime import OnnxRuntime
from nas.errors import UserError
from nas.flags import ElsewhereFlags
from nas.front_bundle import import_front, write_front_bundle
from nas.profiling import plan_profile
from nas.profiling.bundle import import_profile, write_profile_bundle
from nas.profiling.forms import unmeasured_convolutions
from nas.profiling.plan import NUM_FIT
from nas.progress import rich_progress
from nas.run import Run
from nas.ssh import measured_on_host

Found = TypeVar("Found")


def profile_elsewhere(run: Run, flags: ElsewhereFlags, *, redo: bool = False) -> HardwareProfile | None:
    """The profile of another device, which the run has from now on; None where only a bundle was asked for.

    Args:
        redo: set the run's profile aside first.

    Raises:
        UserError, ProfileError: as `write_profile_bundle`, `measured_on_host` and `import_profile` raise them.
    """

    def adopt(result: Path) -> HardwareProfile:
        profile = import_profile(result, run.space)
        if redo:
            run.redo("profile")
        path = run.folder / "devices" / f"{profile.name}-{profile.fingerprint[:8]}.json"
        profile.save(path)
        run.config = replace(
            run.config, hardware=str(path), device=None, threads=profile.num_threads, batch=profile.batch_size
        )
        return run.profile()

    return _measured(flags, lambda folder: _write_profile_bundle(run, folder), adopt)


def verify_elsewhere(
    run: Run, flags: ElsewhereFlags, *, num_images: int | None = None, redo: bool = False
) -> pd.DataFrame | None:
    """Results with what another device measured on the exported models; None where only a bundle was asked for.

    Args:
        num_images: at most so many validation and as many test images travel.
        redo: set models that are verified or exported aside, and export them anew.

    Raises:
        UserError, ProfileError: as `write_front_bundle`, `measured_on_host` and `import_front` raise them.
    """

    if redo and flags.import_file is not None:
        raise UserError("--redo would set aside the models that the result is about; give --import alone")

    def write(folder: Path) -> None:
        if redo:
            run.redo("verify")
        run.export_front()
        rows = json.loads(run.exported_path.read_text(encoding="utf-8"))["rows"]
        profile = HardwareProfile.load(run.folder / "profile.json")
        indices = [row["index"] for row in rows]
        write_front_bundle(folder, run.models_path, indices, run.data, profile, num_images=num_images)

    def adopt(result: Path) -> pd.DataFrame:
        profile = HardwareProfile.load(run.folder / "profile.json")
        results, target, data = import_front(result, run.models_path, run.data, profile)
        return run.record_front(results, target, data)

    return _measured(flags, write, adopt)


def _measured(flags: ElsewhereFlags, write: Callable[[Path], object], adopt: Callable[[Path], Found]) -> Found | None:
    """Go the way that the flags say: write a bundle, adopt a result, or both with a host in between."""
    if flags.bundle is not None:
        write(flags.bundle)
        print(f"bundle: {flags.bundle}; run `python3 run.py` in it on the device, then --import its result.json")
        return None
    if flags.import_file is not None:
        return adopt(flags.import_file)
    if flags.host is None:
        raise UserError("say where to measure: --bundle, --import or --host")
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "bundle")
        with measured_on_host(Path(folder) / "bundle", flags.host, Path(folder), python=flags.host_python) as result:
            return adopt(result)


def _write_profile_bundle(run: Run, folder: Path) -> None:
    config = run.config
    if config.runtime != OnnxRuntime.name:
        raise UserError(f"a bundle measures {OnnxRuntime.name}, not {config.runtime}; leave --runtime away")
    with rich_progress("profile") as progress:
        plan = plan_profile(
            run.space,
            OnnxRuntime.precisions,
            convolutions=unmeasured_convolutions(run.space),
            batch_size=config.batch,
            num_fit=NUM_FIT // 2,  # each is a file to carry
            progress=progress,
        )
    write_profile_bundle(
        plan, folder, num_threads=config.threads, budget_s=config.budget, runtime_device=config.device or ""
    )
