"""Sub-networks as the target will run them, and their scores: what a search evaluates."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import torch

from hardware_profiles.profile import HardwareProfile
from nas.calibration import Ranges, calibrate, check_method
from nas.data import ImageData, Split
from nas.error_estimate import NUM_IMAGES, NUM_NETWORKS, ErrorEstimate
from nas.errors import CandidateError, UserError
from nas.evaluation import Scores, normalize, predict_logits, recalibrate, score, scores_of
from nas.progress import Progress, no_progress
from nas.quantization import simulate
from nas.supernet import Supernet
from search_spaces import Architecture, Genotype, Network, SearchSpace
from search_spaces.precision import (
    PRECISIONS,
    Candidate,
    CandidateSpace,
    QuantizationPolicy,
)

NUM_RANGE_IMAGES = 256
"""Training images whose activations give the ranges of static int8."""


class Evaluator:
    """Sub-networks of one supernet as they will be deployed, and their accuracy under a policy.

    `batch_size`, `bits` of int8 weights, `signed` activations, `precisions` and `convolutions` are the target's;
    `calibration` is how ranges are found.
    """

    def __init__(
        self,
        supernet: Supernet,
        data: ImageData,
        *,
        batch_size: int = 1,
        bits: int = 8,
        signed: bool = False,
        precisions: Sequence[str] = PRECISIONS,
        convolutions: Sequence[tuple[str, str]] = (),
        calibration: str = "min-max",
    ):
        check_method(calibration)
        self.supernet, self.data = supernet, data
        self.batch_size, self.bits, self.signed = batch_size, bits, signed
        self.precisions, self.convolutions, self.calibration = precisions, convolutions, calibration
        self.recalibrated = lru_cache(maxsize=16)(self._recalibrated)
        self.deployed = lru_cache(maxsize=16)(self._deployed)

    def _recalibrated(self, architecture: Architecture) -> Network:
        """A sub-network with statistics of its own, in the form it was trained in."""
        return recalibrate(self.supernet.extract(architecture).to(memory_format=torch.channels_last), self.data)

    def _deployed(self, architecture: Architecture) -> tuple[Network, Ranges]:
        """A recalibrated sub-network in deployed form and the ranges that serve all of its policies."""
        deployed = self.recalibrated(architecture).deploy(self.convolutions)
        return deployed, self.ranges(deployed)

    def ranges(self, deployed: Network) -> Ranges:
        """The ranges of a deployed network over evenly spaced training images."""
        images_BCHW = self.data.calibration_images(max(NUM_RANGE_IMAGES, self.batch_size))
        x_BCHW = normalize(images_BCHW, self.data)
        return calibrate(deployed, x_BCHW, method=self.calibration, batch_size=self.batch_size, signed=self.signed)

    def simulated(self, deployed: Network, policy: QuantizationPolicy, ranges: Ranges) -> Network:
        """What the runtime computes for a deployed network under a policy, in torch."""
        return simulate(deployed, policy, ranges, batch_size=self.batch_size, weight_bits=self.bits)

    def network(self, candidate: Candidate) -> Network:
        """What the runtime will compute for a candidate, in torch; UserError for a precision that the target lacks."""
        self.check_precisions(candidate)
        deployed, ranges = self.deployed(candidate.architecture)
        return self.simulated(deployed, candidate.policy, ranges)

    def check_precisions(self, candidate: Candidate) -> None:
        """UserError when a block of a candidate has a precision that the target lacks."""
        for name, precision in candidate.policy.precisions:
            if precision not in self.precisions:
                raise UserError(
                    f"block '{name}' is {precision}, which the target lacks; it has {', '.join(self.precisions)}"
                )

    def error_pct(self, candidate: Candidate, split: Split) -> float:
        """Top-1 error on a split, in %; lower is better."""
        return 100 - self.score(candidate, split).accuracy_pct

    def score(self, candidate: Candidate, split: Split) -> Scores:
        """All scores on a split."""
        return score(self.network(candidate), split, self.data)


def target_evaluator(
    supernet: Supernet, data: ImageData, profile: HardwareProfile, *, calibration: str = "min-max"
) -> Evaluator:
    """An evaluator for the target of a profile."""
    return Evaluator(
        supernet,
        data,
        batch_size=profile.batch_size,
        bits=profile.weight_bits,
        signed=profile.signed_activations,
        precisions=profile.precisions,
        convolutions=profile.convolutions,
        calibration=calibration,
    )


class ScoresOf:
    """Validation error and cross-entropy of genotypes, and once `fit_estimate` ran the error estimated from both.

    It is what a search evaluates. It can be sent to other processes, weights and data included, where it is built once.
    """

    def __init__(
        self,
        supernet: Supernet,
        data: ImageData,
        profile: HardwareProfile,
        *,
        architecture: Architecture | None = None,
        num_images: int | None = None,
        calibration: str = "min-max",
        num_threads: int = 2,
        estimate: ErrorEstimate | None = None,
    ) -> None:
        options = {"architecture": architecture, "num_images": num_images, "calibration": calibration}
        weights = (supernet.space, supernet.entanglement, supernet.flat)
        self._given = (*weights, data, profile, {**options, "num_threads": num_threads})
        self.evaluator = target_evaluator(supernet, data, profile, calibration=calibration)
        self.candidates = CandidateSpace(supernet.space, precisions=profile.precisions, fixed=architecture)
        self.split = data.validation if num_images is None else data.validation.spread(num_images)
        self._num_threads, self.estimate = num_threads, estimate

    def fit_estimate(self, progress: Progress = no_progress) -> None:
        """Fit the estimate to random candidates, the same at every call; those that can't be are left out."""
        rng, choices = np.random.default_rng(0), self.candidates.choices
        draws = ({c.name: c.values[rng.integers(len(c.values))] for c in choices} for _ in range(10 * NUM_NETWORKS))
        drawn = list(islice(dict.fromkeys(map(self.candidates.candidate, draws)), NUM_NETWORKS))
        data, misses, cross_entropies = self.evaluator.data, [], []
        split = data.validation.spread(max(len(self.split), NUM_IMAGES))
        with torch_threads(self._num_threads):
            for place, candidate in enumerate(drawn):
                progress(place, len(drawn), "estimate of the error")
                with suppress(CandidateError):
                    network = self.evaluator.network(candidate)
                    logits_BK = predict_logits(network, split.images_BCHW, data)
                    misses.append((logits_BK.argmax(dim=1) != split.labels_B).numpy())
                    cross_entropies.append(scores_of(logits_BK, split).cross_entropy)
        self.estimate = ErrorEstimate.fit(np.array(misses), np.array(cross_entropies), num_images=len(self.split))

    def __call__(self, genotype: Genotype) -> dict[str, float]:
        with torch_threads(self._num_threads):
            scores = self.evaluator.score(self.candidates.candidate(genotype), self.split)
        found = {"error_pct": 100 - scores.accuracy_pct, "cross_entropy": scores.cross_entropy}
        return found if self.estimate is None else found | {"estimated_error_pct": self.estimate(**found)}

    def __reduce__(self) -> tuple[Callable[..., "ScoresOf"], tuple[Any, ...]]:
        *given, options = self._given
        return _unpack_scores_of, (*given, {**options, "estimate": self.estimate})


def _unpack_scores_of(
    space: SearchSpace,
    entanglement: str,
    flat: torch.Tensor,
    data: ImageData,
    profile: HardwareProfile,
    options: dict[str, Any],
) -> ScoresOf:
    supernet = Supernet(space, entanglement=entanglement)
    with torch.no_grad():
        supernet.flat.copy_(flat)
    return ScoresOf(supernet, data, profile, **options)


@contextmanager
def torch_threads(num_threads: int) -> Iterator[None]:
    """Run torch with a given number of threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
