"""`fidelity.csv`: a row a stand-alone training, written as it ends, and inherited accuracies once all have."""

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from nas.errors import UserError
from nas.fidelity.sampling import Training
from nas.results import replace_text
from search_spaces import SearchSpace

INHERITED = (
    *("inherited_validation_pct", "inherited_test_pct"),
    *("inherited_test_cross_entropy", "inherited_test_true_class_pct", "inherited_test_estimated_error_pct"),
)


def load_rows(path: Path) -> pd.DataFrame:
    """The table at `path`, one row a training.

    Columns:
        index, role, band_mmacs: of the architecture; `role` is smallest, largest or sampled, outside bands NaN.
        one a gene: `stage1.width`, ...
        macs, params, seed, epochs: of the training.
        standalone_validation_pct, standalone_test_pct: accuracy of the network trained alone; higher is better.
        seconds: what training it took.
        inherited_validation_pct, inherited_test_pct: the same for the recalibrated sub-network; NaN until the end.
        inherited_test_cross_entropy, inherited_test_true_class_pct: its other scores (`nas.evaluation.Scores`); NaN
            also in tables of earlier versions.
        inherited_test_estimated_error_pct: what a search goes by (`nas.error_estimate`), fitted to all architectures
            measured with it; NaN likewise.

    Raises:
        UserError: the file is damaged.
    """
    numbers = ("band_mmacs", "standalone_validation_pct", "standalone_test_pct", *INHERITED)
    counts = ("index", "macs", "params", "seed", "epochs")
    try:
        frame = pd.read_csv(path, keep_default_na=False, na_values=[""])  # a gene may be called "none"
        frame = frame.assign(**{name: float("nan") for name in INHERITED if name not in frame})
        return frame.astype(dict.fromkeys(numbers, float) | dict.fromkeys(counts, int))
    except (ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{str(path)!r} is damaged ({reason}); mend it, or --redo fidelity") from None


class Rows:
    """The file while it grows. One process writes; a row that a kill cut short is dropped when the file is opened."""

    def __init__(self, path: Path, space: SearchSpace):
        self._path = path
        self._columns = [
            *("index", "role", "band_mmacs"),
            *(choice.name for choice in space.choices),
            *("macs", "params", "seed", "epochs"),
            *("standalone_validation_pct", "standalone_test_pct", "seconds", *INHERITED),
        ]
        if path.exists() and self._drop_partial_row():
            self._columns = pd.read_csv(path, nrows=0).columns.tolist()
        else:
            replace_text(path, self._line(dict(zip(self._columns, self._columns, strict=True))))
        self.done = {(int(row["index"]), int(row["seed"])) for _, row in load_rows(path).iterrows()}
        """(index, seed) of the trainings that have a row."""

    def append(self, training: Training, values: Mapping[str, Any]) -> None:
        """Write a row, whole, to the disk."""
        member = training.member
        row = member.architecture.genotype | {
            "index": member.index,
            "role": member.role,
            "band_mmacs": member.band_mmacs,
            "macs": member.macs,
            "params": member.params,
            "seed": training.seed,
        }
        with self._path.open("a", encoding="utf-8", newline="") as file:
            file.write(self._line(row | dict(values)))
            file.flush()
            os.fsync(file.fileno())
        self.done.add((member.index, training.seed))

    def finish(self, inherited: Mapping[int, Iterable[float]]) -> pd.DataFrame:
        """Add the columns `INHERITED` by index, put the rows in order and return them."""
        frame = load_rows(self._path).sort_values(["index", "seed"], ignore_index=True)
        for name, values in zip(INHERITED, zip(*inherited.values(), strict=True), strict=True):
            found = frame["index"].map(dict(zip(inherited, values, strict=True)))
            frame[name] = found.fillna(frame[name])
        replace_text(self._path, frame.to_csv(index=False))
        return load_rows(self._path)

    def _line(self, row: Mapping[str, Any]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self._columns, lineterminator="\n").writerow(row)
        return text.getvalue()

    def _drop_partial_row(self) -> bool:
        """Whether at least the header is there."""
        whole, newline, rest = self._path.read_bytes().rpartition(b"\n")
        if rest:
            os.truncate(self._path, len(whole + newline))
        return bool(newline)
