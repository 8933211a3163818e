"""How well scores without training rank networks that were trained alone.

    python -m tests.benchmarks.zero_cost --alone results/training/alone --output results/training --data DATA

`--alone` is a folder with the `fidelity.csv` of `nas fidelity`. A score is the mean over `--seeds` initialisations,
each on its own batch of `--num-images` training images. Writes `zero_cost.csv`, a row a network, and `zero_cost.json`:
Kendall with the mean stand-alone test accuracy, overall and the mean of bands, with 95% intervals of a bootstrap over
networks.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from cyclopts import run as run_command
from rich.console import Console
from scipy.stats import kendalltau

from nas.candidates import device_free_costs
from nas.data import ImageData, load_data
from nas.evaluation import normalize
from nas.fidelity.rows import load_rows
from nas.progress import rich_progress
from nas.provenance import provenance
from predictors.zero_cost import score
from search_spaces import Architecture, SearchSpace, get_space

RUN = ("synflow", "naswot", "grad_norm")
"""Scores that run an untrained network; the others come from the blocks alone."""
COLUMNS = ("macs", "params", "entropy", "effectiveness", *RUN)
NUM_RESAMPLES = 1000


def rank(
    *,
    alone: Path,
    output: Path,
    space: str = "hybrid-tiny",
    data: str = "cifar10",
    seeds: int = 3,
    num_images: int = 64,
) -> None:
    """Score the networks of `alone` that are in bands."""
    images = load_data(data, image_size=get_space(space).image_size)
    chosen = get_space(space, num_channels=images.num_channels, num_classes=images.num_classes)
    frame = networks(load_rows(alone / "fidelity.csv"), chosen)
    rows = []
    with rich_progress("scores") as progress:
        for done, row in enumerate(frame.to_dict("records"), start=1):
            architecture = chosen.architecture({choice.name: row[choice.name] for choice in chosen.choices})
            rows.append(scores(chosen, architecture, images, seeds=seeds, num_images=num_images))
            progress(done, len(frame), "")
    table = pd.concat([frame[["index", "band_mmacs", "test_pct"]], pd.DataFrame(rows)], axis=1)
    output.mkdir(parents=True, exist_ok=True)
    table.to_csv(output / "zero_cost.csv", index=False)
    about = provenance(("torch", "scipy")) | {"networks": len(table), "seeds": seeds, "images": num_images}
    about |= {"data": images.name, "kendall": figures(table)}
    (output / "zero_cost.json").write_text(json.dumps(about, indent=1) + "\n")
    Console(width=120).print(pd.DataFrame(about["kendall"]).T.round(2).to_string())


def networks(rows: pd.DataFrame, space: SearchSpace) -> pd.DataFrame:
    """A row a network in a band: its genes, and its test accuracy, the mean over the seeds it was trained with."""
    sampled = rows[rows["band_mmacs"].notna()].sort_values(["index", "seed"])
    first = sampled.drop_duplicates("index").reset_index(drop=True)
    mean = sampled.groupby("index")["standalone_test_pct"].mean()
    return first[["index", "band_mmacs", *(choice.name for choice in space.choices)]].assign(
        test_pct=first["index"].map(mean)
    )


def scores(
    space: SearchSpace, architecture: Architecture, data: ImageData, *, seeds: int, num_images: int
) -> dict[str, float]:
    """All of `COLUMNS` for one architecture."""
    found: dict[str, list[float]] = {name: [] for name in RUN}
    for seed in range(seeds):
        indices = np.random.default_rng(seed).choice(len(data.train), num_images, replace=False)
        x_BCHW = normalize(data.train.images_BCHW[indices], data)
        for name, values in found.items():
            values.append(score(name, space, architecture, x_BCHW, data.train.labels_B[indices], seed=seed))
    return device_free_costs(space.blocks(architecture)) | {name: float(np.mean(v)) for name, v in found.items()}


def figures(table: pd.DataFrame, *, seed: int = 0) -> dict[str, dict[str, float]]:
    """For each column its Kendall with test accuracy overall and inside bands, with intervals."""
    rng = np.random.default_rng(seed)
    bands = [part.index.to_numpy() for _, part in table.groupby("band_mmacs")]
    samples = [np.concatenate([rng.choice(band, len(band)) for band in bands]) for _ in range(NUM_RESAMPLES)]
    found = {}
    for name in COLUMNS:
        overall = np.array([_kendall(table.loc[rows], name) for rows in (table.index, *samples)])
        inside = np.array([_in_bands(table.loc[rows], name) for rows in (table.index, *samples)])
        found[name] = {
            "overall": overall[0],
            "overall_low": np.nanpercentile(overall[1:], 2.5),
            "overall_high": np.nanpercentile(overall[1:], 97.5),
            "in_bands": inside[0],
            "in_bands_low": np.nanpercentile(inside[1:], 2.5),
            "in_bands_high": np.nanpercentile(inside[1:], 97.5),
        }
        found[name] |= {f"band_{band:g}": _kendall(part, name) for band, part in table.groupby("band_mmacs")}
    return {name: {key: float(value) for key, value in values.items()} for name, values in found.items()}


def _kendall(table: pd.DataFrame, name: str) -> float:
    return kendalltau(table[name], table["test_pct"]).statistic


def _in_bands(table: pd.DataFrame, name: str) -> float:
    return float(np.mean([_kendall(part, name) for _, part in table.groupby("band_mmacs")]))


if __name__ == "__main__":
    run_command(rank)
