"""Strategies of training at equal wall time: accuracy, fidelity, speed. Resumable; a run folder and a row a strategy.

    python -m tests.benchmarks.compare_strategies --config OPTIONS.yaml --alone RUN --minutes 5 --output FOLDER

`--alone` is the folder of a finished `nas fidelity`, whose stand-alone trainings all strategies are ranked by. A
strategy is trained for one epoch, then for as many as fit into the time by the training before, until it took about
that long; `seconds` is what the last one took.
"""

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import yaml
from cyclopts import Parameter, run
from joblib import Parallel, delayed  # type: ignore[import-untyped]
from rich.console import Console

from nas.config import load_options, merge_options
from nas.fidelity.measure import load_fidelity
from nas.fidelity.options import FidelityOptions
from nas.fidelity.ranking import mean_over_seeds
from nas.fidelity.rows import load_rows
from nas.provenance import provenance
from nas.run import Run

LABELLED = ("sandwich", "multi-architecture", "progressive-shrinking", "single-path", "fair", "conflict-free")
"""Those that need neither a teacher nor a head fitted afterwards."""
TOLERANCE = 0.1
"""Training may take so much longer or shorter, in shares of the time asked for."""
FIGURES = (
    *("kendall", "kendall_in_bands", "estimate_kendall", "estimate_kendall_in_bands"),
    *("gap_pct", "gap_smallest_pct", "gap_largest_pct", "top5_regret_pct"),
)


def compare(
    *,
    config: Path,
    alone: Path,
    output: Path,
    minutes: float = 5.0,
    strategies: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = LABELLED,
    processes: int = 1,
) -> None:
    """Train with each strategy for `minutes`, rank by the trainings in `alone`, and write `strategies.csv`.

    With several `processes` as many strategies train side by side, on equally many threads.
    """
    row = delayed(partial(row_of, config=config, alone=alone, output=output, minutes=minutes))
    rows = Parallel(n_jobs=processes)(map(row, strategies))
    frame = pd.DataFrame(rows).sort_values("gap_pct", ignore_index=True)
    frame.to_csv(output / "strategies.csv", index=False)
    about = provenance(("accelerate", "timm", "torch", "torchvision"))
    (output / "strategies.json").write_text(json.dumps(about, indent=1) + "\n")
    Console(width=200).print(frame.round(3).to_string())


def row_of(strategy: str, *, config: Path, alone: Path, output: Path, minutes: float) -> dict[str, object]:
    """One strategy's figures, perhaps with other options, such as `single-path,size_bias=0.25`; accuracies in %."""
    values, (name, *changes) = load_options(config), strategy.split(",")
    changed = yaml.safe_load("\n".join(change.replace("=", ": ") for change in changes)) or {}
    values["training"] = {**values.get("training", {}), "strategy": name, **changed}
    opened, report = trained_for(60 * minutes, values, output / strategy)
    about = load_fidelity(alone)
    assert about is not None, f"{alone} is no folder of a finished `nas fidelity`"
    options = {name: value for name, value in about["options"].items() if name not in ("alone", "workers")}
    found = opened.fidelity(FidelityOptions(**options, alone=alone))
    steps = report["history"][-1]["step"]
    accuracy = {f"{name}_test_pct": values["test_pct"] for name, values in report["accuracy"].items()}
    figures = {name: found["figures"][name]["value"] for name in FIGURES} | best_in_bands(opened.folder)
    speed = {"epochs": opened.train_options.num_epochs, "steps": steps, "seconds": report["seconds"]}
    return {"strategy": strategy} | speed | {"steps_a_second": steps / report["seconds"]} | accuracy | figures


def best_in_bands(folder: Path) -> dict[str, float]:
    """What a search would export: of each band the network with the best inherited validation accuracy, means of them.

    `exported_test_pct` is what they inherit, `exported_regret_pct` by how many points others of their bands are better
    when trained alone.
    """
    frame = mean_over_seeds(load_rows(folder / "fidelity.csv")).dropna(subset=["band_mmacs", "inherited_test_pct"])
    bands = frame.groupby("band_mmacs")
    best = frame.loc[bands["inherited_validation_pct"].idxmax()].set_index("band_mmacs")
    regret = bands["standalone_test_pct"].max() - best["standalone_test_pct"]
    return {"exported_test_pct": best["inherited_test_pct"].mean(), "exported_regret_pct": regret.mean()}


def trained_for(seconds: float, values: dict[str, Any], folder: Path) -> tuple[Run, dict[str, Any]]:
    """A run whose training took about so long, and what it reports; shorter ones before it tell how many epochs."""
    tried: set[int] = set()
    epochs = 1
    while True:
        tried.add(epochs)
        opened = Run(folder / f"{epochs}-epochs", merge_options({**values, "epochs": epochs}))
        opened.train()
        report = json.loads((opened.folder / "supernet.json").read_text())
        ratio = seconds / report["seconds"]
        better = max(1, round(epochs * ratio))
        if better in tried or abs(ratio - 1) < TOLERANCE:
            return opened, report
        epochs = better


if __name__ == "__main__":
    run(compare)
