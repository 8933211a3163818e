"""Stand-alone trainings of another run, taken over where they are of the same space, data and recipe."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas.data import ImageData
from nas.errors import UserError
from nas.fidelity.rows import Rows, load_rows
from nas.fidelity.sampling import Training
from nas.fidelity.standalone import standalone_options
from nas.training import TrainOptions
from nas.training.options import OF_SEVERAL_NETWORKS
from search_spaces import SearchSpace

VALUES = ("epochs", "standalone_validation_pct", "standalone_test_pct", "seconds")
"""What a row says of a training."""


def conditions(space: SearchSpace, data: ImageData, recipe: TrainOptions, *, num_epochs: int) -> dict[str, Any]:
    """What accuracies of stand-alone trainings depend on, besides architecture and seed; as JSON."""
    options = standalone_options(recipe, num_epochs=num_epochs, seed=0).to_json()
    used = {k: v for k, v in options.items() if k not in ("seed", "checkpoint_steps", *OF_SEVERAL_NETWORKS)}
    return {"space": space.fingerprint, "data": data.fingerprint, "options": used}


def check_conditions(folder: Path, about: dict[str, Any], wanted: dict[str, Any]) -> None:
    """UserError, naming what differs, when the stand-alone trainings in `folder` were made under other conditions.

    Args:
        about: what the `fidelity.json` in `folder` holds.
        wanted: `conditions` of the trainings that are asked for.
    """
    found = about.get("alone") or {}
    was, here = ({**made, **made.get("options", {})} for made in (found, wanted))
    for name, value in here.items():
        if name != "options" and was.get(name) != value:
            raise UserError(
                f"stand-alone trainings in {folder} had {name}={was.get(name)}, here it is {value}; train anew, "
                "without --alone"
            )


def take_over(rows: Rows, plan: Sequence[Training], source: Path) -> None:
    """Append the rows of `plan` that `source`, another run's `fidelity.csv`, has and `rows` doesn't.

    UserError when the file is damaged.
    """
    frame = load_rows(source)
    for training in plan:
        if (training.member.index, training.seed) in rows.done:
            continue
        same = frame["seed"] == training.seed
        for name, gene in training.member.architecture.genes:
            same &= frame[name].astype(str) == str(gene)
        for _, row in frame[same].iterrows():
            rows.append(training, {name: row[name] for name in VALUES})
            break
