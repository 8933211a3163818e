"""The files of a training run: what is there, whether it belongs to what is asked for, and its end."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from nas.errors import UserError
from nas.supernet import Supernet
from nas.training.options import TrainOptions

WEIGHTS, REPORT, CHECKPOINT = "supernet.safetensors", "supernet.json", "checkpoint.safetensors"


def finished_epochs(folder: Path, about: dict[str, Any], options: TrainOptions) -> int:
    """Epochs of the finished supernet in `folder`, 0 without one; UserError when it isn't what is asked for."""
    if not ((folder / REPORT).exists() and (folder / WEIGHTS).exists()):
        return 0
    report = read_report(folder / REPORT)
    check_same(report, about, options, folder / WEIGHTS)
    num_epochs = int(report["options"]["num_epochs"])
    if num_epochs > options.num_epochs:
        raise UserError(
            f"supernet '{folder / WEIGHTS}' has num_epochs={num_epochs}, more than the {options.num_epochs} asked for; "
            f"ask for at least {num_epochs} or use another folder"
        )
    return num_epochs


def check_same(found: dict[str, Any], wanted: dict[str, Any], options: TrainOptions, path: Path) -> None:
    for name, what in (("space_fingerprint", "search space"), ("data_fingerprint", "data")):
        if found.get(name) != wanted[name]:
            raise UserError(f"'{path}' was trained with another {what}; remove it or use another folder")
    earlier = TrainOptions.from_json(found["options"])
    if differences := options.differences(earlier):
        name = differences[0]
        raise UserError(
            f"'{path}' was trained with {name}={getattr(earlier, name)}, not {getattr(options, name)}; "
            "use the same options or another folder"
        )


def read_report(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' can't be read ({error}); remove it and train again") from None


def finish(supernet: Supernet, folder: Path, report: dict[str, Any]) -> None:
    """Write the weights, then the report that declares them finished, then drop the checkpoint."""
    part = folder / f"{REPORT}.part"
    try:
        supernet.save(folder / WEIGHTS)
        part.write_text(json.dumps(report, indent=1))
        part.replace(folder / REPORT)
    except (OSError, SafetensorError) as error:
        for name in (WEIGHTS, REPORT):
            (folder / f"{name}.part").unlink(missing_ok=True)
        raise UserError(
            f"the supernet can't be written to '{folder}' ({error}); make room and run the same command again"
        ) from None
    (folder / CHECKPOINT).unlink(missing_ok=True)
