"""How well scores on some validation images rank sub-networks by their accuracy on test.

    python -m tests.benchmarks.score_images --run RUN --output FILE [--num-architectures 64] [--draws 20]

RUN is the folder of a run with a supernet. Architectures are drawn uniformly, in fp32, and recalibrated. For every
number of validation images, and as many draws of them, the architectures are ranked by top-1 accuracy, by cross-entropy
and by mean probability of the true class. FILE has the mean Kendall of each with test accuracy, and its deviation over
draws.
"""

import json
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from cyclopts import run as run_command
from rich.console import Console
from scipy.stats import kendalltau

from nas.config import load_options, merge_options
from nas.data import Split
from nas.evaluation import Scores, batches, recalibrate, scores_of
from nas.progress import rich_progress
from nas.provenance import module_command, provenance
from nas.run_inputs import load_inputs
from nas.supernet import Supernet

NUM_IMAGES = (250, 500, 1000, 2000)
SIGNS = {"accuracy_pct": 1, "cross_entropy": -1, "true_class_pct": 1}
assert list(SIGNS) == list(Scores.__dataclass_fields__)


def rank(*, run: Path, output: Path, num_architectures: int = 64, draws: int = 20) -> None:
    """Rank architectures drawn with seed 0."""
    data, space = load_inputs(merge_options(load_options(run / "config.yaml")))
    supernet, rng = Supernet(space), np.random.default_rng(0)
    supernet.load(run / "supernet.safetensors")
    logits, tests = [], []
    with rich_progress("architectures") as progress, torch.no_grad():
        for done in range(num_architectures):
            network = recalibrate(supernet.extract(space.sample(rng)), data)
            found = [
                torch.cat([network(x_BCHW) for x_BCHW in batches(split.images_BCHW, data)])
                for split in (data.validation, data.test)
            ]
            logits.append(found[0])
            tests.append(scores_of(found[1], data.test).accuracy_pct)
            progress(done + 1, num_architectures, "")
    rows = []
    for num_images in (*(num for num in NUM_IMAGES if num < len(data.validation)), len(data.validation)):
        kendalls = [
            _kendalls(logits, data.validation, rng.permutation(len(data.validation))[:num_images], tests)
            for _ in range(draws if num_images < len(data.validation) else 1)
        ]
        means, deviations = np.mean(kendalls, axis=0), np.std(kendalls, axis=0)
        rows.append({"num_images": num_images} | dict(zip(SIGNS, means.tolist(), strict=True)))
        rows[-1] |= {f"{name}_std": float(std) for name, std in zip(SIGNS, deviations, strict=True)}
    about = {"command": module_command(), "data": Path(data.name).name, "space": space.name, "draws": draws}
    about |= {"num_architectures": num_architectures, "test_accuracy_std": float(np.std(tests))}
    about |= provenance(("torch", "scipy"))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")
    Console(width=120).print(pd.DataFrame(rows).round(3).to_string(index=False))


def _kendalls(logits: list[torch.Tensor], split: Split, chosen: np.ndarray, tests: list[float]) -> list[float]:
    """Of each score on the chosen images with the accuracies on test."""
    part = split.read(chosen)
    images = Split(images_BCHW=part.images_BCHW, labels_B=part.labels_B)
    scores = np.array([astuple(scores_of(logits_BK[torch.from_numpy(chosen)], images)) for logits_BK in logits])
    signs = SIGNS.values()
    return [float(kendalltau(sign * column, tests).statistic) for sign, column in zip(signs, scores.T, strict=True)]


if __name__ == "__main__":
    run_command(rank)
