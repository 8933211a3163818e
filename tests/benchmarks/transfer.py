"""Latency on new devices from a few measured cells of a table such as NAS-Bench-201's, by the protocol of HELP.

    python -m tests.benchmarks.transfer --table FILE --protocol FILE [--samples 10 20] [--draws 20] [--output DIR]

A row of the table is a cell: `op_<i>_<j>` is the operation on the edge from node j to node i (0 is none),
`lat_ms__<device>` its latency, `mflops_cifar10` its MFLOPs. The protocol names the devices to learn from
(`meta_train`), those to predict (`meta_test`), the cells to learn from and to measure (`train_arch`), and those to rank
(`query_arch`); of both, the tenths that are fastest and slowest on the device are left out. What a source device needs
for a cell is predicted from the cell alone, by a Gaussian process that learned from the device's training cells. Writes
`transfer.csv`, a row a device, method, number of samples and draw, and `transfer.json`, means and spreads with what
made them. Methods:

    random    LatencyTransfer on random training cells, as the protocol draws them
    selected  LatencyTransfer on cells that its `select` picked among all training cells, the same on every device
    sources   the mean of the sources' predictions, nothing measured on the device (no milliseconds: only ranks count)
    flops     MFLOPs (only ranks count)
    own       a Gaussian process on all training cells measured on the device itself: about what can be reached
"""

import json
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from cyclopts import Parameter
from cyclopts import run as run_command
from rich.console import Console

from nas.provenance import provenance
from nas.results import replace_text
from predictors.gaussian_process import GaussianProcess
from predictors.metrics import prediction_metrics
from predictors.transfer import LatencyTransfer

FIGURES = ("spearman", "kendall", "mape_pct", "within_1std_pct", "fit_s")
RANKS_ONLY = ("sources", "flops")
OWN = "own"


def transfer(
    *,
    table: Path,
    protocol: Path,
    samples: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = (10, 20),
    draws: int = 20,
    output: Path = Path("results/transfer"),
) -> None:
    """Predict each device of the protocol from `samples` measured cells, `draws` times."""
    split = Split(pd.read_parquet(table), json.loads(protocol.read_text()))
    started = time.perf_counter()
    sources_ms_ND = split.sources()
    pretrained = time.perf_counter()
    X = np.column_stack([sources_ms_ND, split.counts])
    model = LatencyTransfer(sources_ms_ND.shape[1], (split.counts.shape[1],))
    model.pretrain(X[split.train], split.trimmed_sources())
    seconds = {"source_models_s": pretrained - started, "pretrain_s": time.perf_counter() - pretrained}
    rows = pd.DataFrame(
        row for device in split.test for row in measure(split, model, X, device, samples=samples, draws=draws)
    )
    output.mkdir(parents=True, exist_ok=True)
    replace_text(output / "transfer.csv", rows.to_csv(index=False, float_format="%.6g"))
    summary = summarise(rows)
    about = provenance(("numpy", "scipy", "scikit-learn", "pandas"))
    known = [row.dropna().to_dict() for _, row in summary.iterrows()]
    about |= {"draws": draws, **seconds, "rows": known}
    replace_text(output / "transfer.json", json.dumps(about, indent=1, allow_nan=False) + "\n")
    Console(width=140).print(summary.round(4).to_string(index=False))


class Split:
    """Cells, devices and latencies of a protocol."""

    def __init__(self, table: pd.DataFrame, protocol: Mapping[str, Any]) -> None:
        self.train, self.query = _rows(protocol["train_arch"]), _rows(protocol["query_arch"])
        if not np.array_equal(table["arch_idx"], np.arange(len(table))):
            raise ValueError("rows of the table must be in the order of arch_idx, none missing")
        self.table = table.iloc[: self.query[-1] + 1]
        self.learned, self.test = tuple(protocol["meta_train"]), tuple(protocol["meta_test"])
        edges = [name for name in table if re.fullmatch(r"op_\d+_\d+", str(name))]
        operation_NE = self.table[edges].to_numpy()
        kinds = range(1, int(operation_NE.max()) + 1)
        self.counts = np.column_stack([(operation_NE == kind).sum(axis=1) for kind in kinds]).astype(float)
        self._structure = np.column_stack([*(operation_NE == kind for kind in kinds), self.counts])
        self._groups = (len(edges) * len(kinds), len(kinds))

    def latency_ms(self, device: str) -> np.ndarray:
        return self.table[f"lat_ms__{device}"].to_numpy(dtype=float)

    def sources(self) -> np.ndarray:
        """Predicted latency of every cell on each device to learn from."""
        return np.column_stack([self.predict_from(self.latency_ms(d), self.train) for d in self.learned])

    def predict_from(self, latency_ms: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Latency of every cell, given that of some rows."""
        model = GaussianProcess(self._groups).fit(self._structure[rows], latency_ms[rows])
        return np.asarray(model.predict(self._structure))

    def trimmed_sources(self) -> np.ndarray:
        """What each device to learn from measured for the training cells, NaN where the protocol leaves them out."""
        found_ND = np.full((len(self.train), len(self.learned)), np.nan)
        for column, device in enumerate(self.learned):
            rows = self.trim(self.train, device)
            found_ND[rows - self.train[0], column] = self.latency_ms(device)[rows]
        return found_ND

    def trim(self, rows: np.ndarray, device: str) -> np.ndarray:
        """Those of `rows` between the 10th and the 90th percentile of latency."""
        ordered = rows[np.argsort(self.latency_ms(device)[rows], kind="stable")]
        return ordered[int(len(rows) * 0.1) : int(len(rows) * 0.9)]


def measure(
    split: Split, model: LatencyTransfer, X: np.ndarray, device: str, *, samples: tuple[int, ...], draws: int
) -> Iterator[dict[str, Any]]:
    """A row a method, number of samples and draw."""
    true_ms, query, train = split.latency_ms(device), split.trim(split.query, device), split.trim(split.train, device)
    mean_of_sources = (X[:, : model.num_sources] / X[split.train, : model.num_sources].mean(axis=0)).mean(axis=1)
    fixed = {"sources": mean_of_sources, "flops": split.table["mflops_cifar10"].to_numpy()}
    fixed[OWN] = split.predict_from(true_ms, train)
    for method, predicted in fixed.items():
        found = prediction_metrics(true_ms[query], predicted[query])
        num = len(train) if method == OWN else 0
        yield {"device": device, "method": method, "samples": num, "draw": 0} | {
            name: found[name] for name in FIGURES[: 2 if method in RANKS_ONLY else 3]
        }
    for num in samples:
        selected = split.train[model.select(X[split.train], num)]
        random = [np.random.default_rng(draw).choice(train, num, replace=False) for draw in range(draws)]
        for method, draw, rows in [("selected", 0, selected), *(("random", d, r) for d, r in enumerate(random))]:
            started = time.perf_counter()
            model.fit(X[rows], true_ms[rows])
            fit_s = time.perf_counter() - started
            predicted, std = model.predict(X[query], return_std=True)
            found = prediction_metrics(true_ms[query], predicted)
            found |= {
                "within_1std_pct": 100 * float((np.abs(predicted - true_ms[query]) <= std).mean()),
                "fit_s": fit_s,
            }
            yield {"device": device, "method": method, "samples": num, "draw": draw} | {n: found[n] for n in FIGURES}


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Means, and Spearman's standard deviation over draws: of each device, and of the mean over all devices."""
    over_devices = rows.groupby(["method", "samples", "draw"], as_index=False)[list(FIGURES)].mean()
    both = pd.concat([rows, over_devices.assign(device="mean")])
    groups = both.groupby(["method", "samples", "device"], sort=False)
    figures = groups[list(FIGURES)].mean().assign(spearman_std=groups["spearman"].std(), draws=groups.size())
    return figures.reset_index().sort_values(["method", "samples"], kind="stable")


def _rows(text: str) -> np.ndarray:
    """From 'arch_idx 0..899 (first 900)' to the numbers 0 to 899."""
    found = re.search(r"(\d+)\.\.(\d+)", text)
    if found is None:
        raise ValueError(f"{text!r} names no rows; write the first and the last of them as 0..899")
    return np.arange(int(found[1]), int(found[2]) + 1)


if __name__ == "__main__":
    run_command(transfer)
