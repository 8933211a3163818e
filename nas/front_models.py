"""The models of a study's front: which are exported, and who is on the front once their files are measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import moocore
import numpy as np
import pandas as pd

from hardware_profiles.measure import LatencyStats
from hardware_profiles.profile import HardwareProfile
from nas.candidates import OBJECTIVES
from nas.config import DEFAULT_OBJECTIVES
from nas.data import ImageData, Split
from nas.error_estimate import ErrorEstimate
from nas.evaluation import predict_classes
from nas.evaluator import target_evaluator
from nas.export import export_model
from nas.search import Constraint, parse_constraint
from nas.search.objectives import as_costs
from nas.search.pareto import on_front
from nas.supernet import Supernet
from search_spaces import Architecture
from search_spaces.precision import Candidate, CandidateSpace

MEASURED = {
    name: f"measured_{name}"
    for name in ("error_pct", "estimated_error_pct", "cross_entropy", "latency_ms", "size_bytes")
}
"""Column of the measured value of each quantity that the exported file changes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Outputs:
    """What a model file gives for a split's images."""

    classes: np.ndarray
    """Top-1, in the order of the images."""
    cross_entropy: float | None = None
    """Mean over them, in nats; None where another machine ran the file, which sends classes alone."""


class FrontModels:
    """Candidates of a study whose searched values give way to measured ones, model file after model file.

    Whoever measures the files hands in what came out; so that can be another machine.

    Args:
        frame: the study's rows, as `run_search` returns them.
        folder: where model files are, each in a folder named by its index.
        calibration: as the search was given it.
        max_models: how many candidates are chosen at most: the best in each objective, then those that leave the front
            the most hypervolume when others are dropped one by one.
    """

    def __init__(
        self,
        supernet: Supernet,
        data: ImageData,
        profile: HardwareProfile,
        frame: pd.DataFrame,
        folder: Path,
        *,
        objectives: Sequence[str] = DEFAULT_OBJECTIVES,
        constraints: Sequence[str] = (),
        architecture: Architecture | None = None,
        calibration: str = "min-max",
        max_models: int = 10,
    ) -> None:
        self.folder, self.max_models, self.data = folder, max_models, data
        self.measured: dict[int, dict[str, Any]] = {}
        """Index -> values of the files that were measured."""
        self._objectives = [OBJECTIVES[objective] for objective in objectives]
        self._limits = [parse_constraint(text, OBJECTIVES) for text in constraints]
        self._candidates = CandidateSpace(supernet.space, precisions=profile.precisions, fixed=architecture)
        self._evaluator = target_evaluator(supernet, data, profile, calibration=calibration)
        self._current = frame[frame["state"] == "complete"].copy()
        self._policies = uniform_rows(self._current, self._candidates)
        self._estimate = ErrorEstimate.of_rows(self._current) if "estimated_error_pct" in objectives else None

    def waiting(self) -> list[int]:
        """Indices still to measure: uniform policies, then members of the front as far as there is room.

        Where there is too little, those come first that are the best in an objective, and then those that leave the
        front the most hypervolume.
        """
        room = self.max_models - len(self.measured)
        must = [index for index in self._policies if index not in self.measured]
        front = self._current[on_front(self._current, self._objectives, self._limits)].sort_values("latency_ms")
        waiting = [int(i) for i in front["index"] if int(i) not in self.measured and int(i) not in must]
        room -= len(must)
        if len(waiting) > room:
            costs = pd.DataFrame(_scaled(as_costs(front, self._objectives)), index=front["index"].astype(int))
            best = [index for index in dict.fromkeys(costs.idxmin()) if index in waiting]
            others = [index for index in waiting if index not in best]
            while others and len(best) + len(others) > room:
                shares = moocore.hv_contributions(costs.to_numpy(), ref=1.1)
                share_of = dict(zip(costs.index, shares, strict=True))
                others.remove(least := min(others, key=share_of.__getitem__))
                costs = costs.drop(index=least)
            waiting = [*best[: max(room, 0)], *others]
        return must + waiting

    def path(self, index: int) -> Path:
        """The model file of a candidate."""
        return self.folder / str(index) / "model.onnx"

    def predicted_ms(self, index: int) -> float:
        """The searched latency of a candidate that isn't measured yet."""
        return float(self._current.loc[self._current["index"] == index, "latency_ms"].iloc[0])

    def export(self, index: int) -> dict[str, Any]:
        """Write a candidate's files; returns its index and whose policy it is."""
        row = self._current[self._current["index"] == index].iloc[0]
        searched = {name: float(row[name]) for name in OBJECTIVES if name in row}
        export_model(self._evaluator, self._candidate(index), self.folder / str(index), objectives=searched)
        return {"index": index, "policy": self._policies.get(index, "searched")}

    def simulated(self, index: int, split: Split) -> np.ndarray:
        """Top-1 classes of a candidate in torch, under its policy."""
        network = self._evaluator.network(self._candidate(index))
        return predict_classes(network, split.images_BCHW, self.data).numpy()

    def add(self, index: int, outputs: Outputs, simulated: np.ndarray, latency: LatencyStats) -> None:
        """Let measured values of a candidate's file take the place of searched ones; what wasn't measured stays.

        Args:
            outputs: for the validation images.
            simulated: top-1 classes that torch gives for them.
        """
        found = measurements(self.path(index), outputs, simulated, self.data.validation, latency)
        if self._estimate is not None:
            found["measured_estimated_error_pct"] = self._estimated(index, found, simulated)
        self.measured[index] = {"index": index, "policy": self._policies.get(index, "searched"), **found}
        known = {name: found[column] for name, column in MEASURED.items() if column in found}
        self._current.loc[self._current["index"] == index, list(known)] = list(known.values())

    def _estimated(self, index: int, found: dict[str, float], simulated: np.ndarray) -> float:
        """The estimated error of a file; without its cross-entropy the candidate's and what the file misses more."""
        assert self._estimate is not None
        if "measured_cross_entropy" in found:
            return self._estimate(found["measured_error_pct"], found["measured_cross_entropy"])
        searched = float(self._current.loc[self._current["index"] == index, "estimated_error_pct"].iloc[0])
        return searched + found["measured_error_pct"] - error_pct(simulated, self.data.validation)

    def judge(self) -> list[dict[str, Any]]:
        """One row a measured candidate: its values, whether it is on the front, and why not."""
        known = self._current[self._current["index"].isin(self.measured)]
        members = set(known[on_front(known, self._objectives, self._limits)]["index"])
        return [
            {
                **row,
                "on_front": index in members,
                "reason": "" if index in members else _why_not(known[known["index"] == index].iloc[0], self._limits),
            }
            for index, row in self.measured.items()
        ]

    def _candidate(self, index: int) -> Candidate:
        row = self._current[self._current["index"] == index].iloc[0]
        return self._candidates.candidate(
            {choice.name: _plain(row[choice.name]) for choice in self._candidates.choices}
        )


def _scaled(costs: np.ndarray) -> np.ndarray:
    """Costs (N x M) from 0 to 1 in each column, in logarithms where all are positive: half as slow is half as slow."""
    for column in range(costs.shape[1]):
        if (costs[:, column] > 0).all():
            costs[:, column] = np.log(costs[:, column])
    low, span = costs.min(axis=0), np.ptp(costs, axis=0)
    return (costs - low) / np.where(span > 0, span, 1.0)


def uniform_rows(frame: pd.DataFrame, candidates: CandidateSpace) -> dict[int, str]:
    """For a search of precisions alone: index -> precision of the rows that use one precision throughout.

    They are always measured, so that the searched policies can be compared with them.
    """
    if candidates.fixed is None:
        return {}
    uniform = {p: candidates.genotype(candidates.uniform(candidates.fixed, p)) for p in candidates.precisions}
    genes = [choice.name for choice in candidates.choices]
    rows = {int(row["index"]): {gene: _plain(row[gene]) for gene in genes} for _, row in frame.iterrows()}
    return {index: p for p, genotype in uniform.items() for index, row in rows.items() if row == genotype}


def measurements(
    path: Path, outputs: Outputs, simulated: np.ndarray, split: Split, latency: LatencyStats
) -> dict[str, float]:
    """What a model file showed on a split's images; `simulated` are the classes that torch gives for them."""
    return {
        "measured_latency_ms": latency.latency_ms,
        "measured_latency_spread_pct": latency.spread_pct,
        "measured_error_pct": error_pct(outputs.classes, split),
        **({} if outputs.cross_entropy is None else {"measured_cross_entropy": outputs.cross_entropy}),
        "measured_size_bytes": path.stat().st_size,
        "agreement_pct": 100 * float(np.mean(outputs.classes == simulated)),
    }


def error_pct(classes: np.ndarray, split: Split) -> float:
    """Share of the split's images whose class is another, in percent."""
    return 100 - 100 * float(np.mean(classes == split.labels_B.numpy()))


def _why_not(values: pd.Series, limits: Sequence[Constraint]) -> str:
    broken = [str(limit) for limit in limits if limit.violation(values[limit.objective]) > 0]
    return f"measured values break {', '.join(broken)}" if broken else "another measured model is better in everything"


def _plain(value: Any) -> Any:
    """A gene's value as Python's own type: data frames hold numpy's."""
    return value.item() if isinstance(value, np.generic) else value
