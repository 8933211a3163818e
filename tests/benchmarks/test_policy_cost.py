"""What one more policy of a calibrated sub-network costs: its evaluation against the plain fp32 one.

Ratios of paired runs in alternating order, the median a policy; images at which the target sees one at once.
"""

import numpy as np
import pytest
import torch

from nas.data import from_arrays
from nas.evaluator import Evaluator
from nas.supernet import Supernet
from search_spaces import hybrid_tiny
from search_spaces.precision import PRECISIONS, Candidate, CandidateSpace
from tests.benchmarks.test_supernet_cost import ratio_of

MAX_RATIO = 1.7
NUM_IMAGES = 2000
NUM_RANGE_IMAGES = 1024
NUM_PAIRS = 9
ARCHITECTURES = ("smallest", "middle", "largest")


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    torch.manual_seed(0)
    rng, count = np.random.default_rng(0), NUM_IMAGES + NUM_RANGE_IMAGES
    arrays = (rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8), np.arange(count) % 10)
    data = from_arrays(
        "noise", train=arrays, test=arrays, class_names=tuple("0123456789"), image_size=32, num_validation=NUM_IMAGES
    )
    return Evaluator(Supernet(hybrid_tiny()), data)


def policies_of(evaluator: Evaluator, name: str) -> dict[str, Candidate]:
    """Each precision wherever blocks have it, and one policy at random."""
    space = evaluator.supernet.space
    architecture = getattr(space, name)()
    candidates, rng = CandidateSpace(space, fixed=architecture), np.random.default_rng(0)
    mixed = candidates.candidate({c.name: c.values[rng.integers(len(c.values))] for c in candidates.choices})
    return {precision: candidates.uniform(architecture, precision) for precision in PRECISIONS[1:]} | {"mixed": mixed}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_one_more_policy_costs_little_more_than_fp32(evaluator: Evaluator, name: str) -> None:
    print(f"\n{name} of hybrid-tiny, {NUM_IMAGES} images, torch {torch.__version__}, {torch.get_num_threads()} threads")
    ratios = {}
    for policy, candidate in policies_of(evaluator, name).items():

        def plain(candidate: Candidate = candidate) -> float:
            return evaluator.error_pct(Candidate(architecture=candidate.architecture), evaluator.data.validation)

        def quantized(candidate: Candidate = candidate) -> float:
            return evaluator.error_pct(candidate, evaluator.data.validation)

        plain_ms, ratios[policy] = ratio_of(quantized, plain, num_pairs=NUM_PAIRS)
        print(f"{policy:<12} {plain_ms:>9.1f} ms fp32 {ratios[policy]:>6.3f}")
    assert max(ratios.values()) <= MAX_RATIO
