"""How well scores on some validation images rank sub-networks by their accuracy on test.

    python -m tests.benchmarks.score_images --run RUN --output FILE [--num-architectures 64] [--draws 20]

RUN is the folder of a run with a supernet. Architectures are drawn uniformly, in fp32, and recalibrated. For every
number of validation images, and as many draws of them, the architectures are ranked by top-1 accuracy, by
cross-entropy, by mean probability of the true class, and by the error that is estimated from the first two
(`nas.error_estimate`, fitted to other architectures). FILE has the mean Kendall of each with test accuracy, its
deviation over draws, and how far counted and estimated errors are from those on test (points, root mean square over
architectures; the mean difference is taken out, as validation and test images may differ).
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
from nas.error_estimate import NUM_IMAGES, NUM_NETWORKS, ErrorEstimate
from nas.evaluation import Scores, predict_logits, recalibrate, scores_of
from nas.progress import rich_progress
from nas.provenance import provenance
from nas.run_inputs import load_inputs
from nas.supernet import Supernet

COUNTS = (250, 500, 1000, 2000)
SIGNS = {"accuracy_pct": 1, "cross_entropy": -1, "true_class_pct": 1, "estimated_error_pct": -1}
assert list(SIGNS)[:3] == list(Scores.__dataclass_fields__)
FIGURES = (*SIGNS, "points_off_counted", "points_off_estimated")


def rank(*, run: Path, output: Path, num_architectures: int = 64, draws: int = 20) -> None:
    """Rank architectures drawn with seed 0."""
    data, space = load_inputs(merge_options(load_options(run / "config.yaml")))
    supernet, rng = Supernet.read(space, run / "supernet.safetensors"), np.random.default_rng(0)
    logits, tests = [], []
    total = num_architectures + NUM_NETWORKS
    with rich_progress("architectures") as progress:
        for done in range(total):
            network = recalibrate(supernet.extract(space.sample(rng)), data)
            logits.append(predict_logits(network, data.validation.images_BCHW, data))
            if done < num_architectures:
                tests.append(scores_of(predict_logits(network, data.test.images_BCHW, data), data.test).accuracy_pct)
            progress(done + 1, total, "")
    rows = []
    for num_images in (*(num for num in COUNTS if num < len(data.validation)), len(data.validation)):
        figures = [
            _figures(logits, data.validation, rng.permutation(len(data.validation)), num_images, tests)
            for _ in range(draws if num_images < len(data.validation) else 1)
        ]
        means, deviations = np.mean(figures, axis=0), np.std(figures, axis=0)
        rows.append({"num_images": num_images} | dict(zip(FIGURES, means.tolist(), strict=True)))
        rows[-1] |= {f"{name}_std": float(std) for name, std in zip(FIGURES, deviations, strict=True)}
    about = {"data": Path(data.name).name, "space": space.name, "draws": draws}
    about |= {"num_architectures": num_architectures, "test_accuracy_std": float(np.std(tests))}
    about |= provenance(("torch", "scipy"))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")
    Console(width=120).print(pd.DataFrame(rows).round(3).to_string(index=False))


def _figures(
    logits: list[torch.Tensor], split: Split, order: np.ndarray, num_images: int, tests: list[float]
) -> list[float]:
    """`FIGURES` of the architectures of `tests` by the first images of an order; those after them are for the estimate,
    on as many images as a search would fit it to.
    """
    num, fitted = len(tests), order[: max(num_images, NUM_IMAGES)]
    scores = np.array([_scores(logits_BK, split, order[:num_images]) for logits_BK in logits[:num]])
    cross_entropies = np.array([_scores(logits_BK, split, fitted)[1] for logits_BK in logits[num:]])
    misses = np.stack([(logits_BK.argmax(dim=1) != split.labels_B).numpy()[fitted] for logits_BK in logits[num:]])
    counted, estimate = 100 - scores[:, 0], ErrorEstimate.fit(misses, cross_entropies, num_images=num_images)
    estimated = np.array(list(map(estimate, counted, scores[:, 1])))
    columns, signs = np.column_stack([scores, estimated]).T, SIGNS.values()
    kendalls = [float(kendalltau(sign * column, tests).statistic) for sign, column in zip(signs, columns, strict=True)]
    return [*kendalls, *(float(np.std(errors + tests)) for errors in (counted, estimated))]


def _scores(logits_BK: torch.Tensor, split: Split, chosen: np.ndarray) -> tuple[float, ...]:
    """Of the chosen images."""
    part = split.read(chosen)
    return astuple(
        scores_of(logits_BK[torch.from_numpy(chosen)], Split(images_BCHW=part.images_BCHW, labels_B=part.labels_B))
    )


if __name__ == "__main__":
    run_command(rank)
