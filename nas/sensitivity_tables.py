"""`sensitivity.csv` in a run folder: tables of architectures, told apart by a column, each kept when others follow."""

from pathlib import Path

import pandas as pd

from hardware_profiles.profile import HardwareProfile
from nas.errors import UserError
from nas.evaluator import Evaluator, torch_threads
from nas.progress import Progress
from nas.results import load_results, replace_text, select
from nas.sensitivity import COSTS, measure_sensitivity
from search_spaces import Architecture, SearchSpace

CSV = "sensitivity.csv"

NUMBERS = ("divergence", "error_change", *COSTS, "latency_gain_ms", "size_gain_bytes")


def load_sensitivity(run: Path) -> pd.DataFrame:
    """Tables of `nas.sensitivity.measure_sensitivity` with the column `architecture` first; none without the file.

    Raises:
        UserError: the file is damaged.
    """
    path, names = run / CSV, ["architecture", "block", "precision", *NUMBERS]
    if not path.is_file():
        return pd.DataFrame(columns=names)
    try:
        return pd.read_csv(path, dtype={"architecture": str})[names].astype(dict.fromkeys(NUMBERS, float))
    except (ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{str(path)!r} is damaged ({reason}); --redo sensitivity makes it again") from None


def has_sensitivity(run: Path, name: str) -> bool:
    """Is there a table of the architecture of that name?"""
    return name in set(load_sensitivity(run)["architecture"])


def add_sensitivity(
    run: Path,
    name: str,
    architecture: Architecture,
    evaluator: Evaluator,
    profile: HardwareProfile,
    *,
    num_threads: int = 2,
    progress: Progress,
) -> None:
    """Measure an architecture and put its table, under `name`, into the file."""
    with torch_threads(num_threads):
        table = measure_sensitivity(
            evaluator.network,
            architecture,
            space=evaluator.supernet.space,
            profile=profile,
            data=evaluator.data,
            progress=progress,
        )
    others = load_sensitivity(run).query("architecture != @name")
    table.insert(0, "architecture", name)
    replace_text(run / CSV, (pd.concat([others, table]) if len(others) else table).to_csv(index=False))


def front_member(run: Path, space: SearchSpace, text: str) -> Architecture | None:
    """The architecture of a member of the joint search's front, None when `text` is no number.

    Raises:
        UserError: there is no search yet, or no such member.
    """
    if not text.isdecimal():
        return None
    frame = load_results(run)
    (index,) = select(frame, text)
    row = frame[frame["index"] == index].iloc[0]
    genes = {choice.name: choice.values[choice.index(row[choice.name])] for choice in space.choices}
    return space.architecture(genes)
