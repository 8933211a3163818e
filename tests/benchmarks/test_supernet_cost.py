"""What sharing weights costs: gather, forward, backward and scatter against the plain module's forward and backward.

Ratios of paired runs, in alternating order; geometric mean over architectures of the median ratio.
"""

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nas.supernet import Supernet
from search_spaces import Architecture, hybrid_tiny

NUM_RANDOM = 3
NUM_STEP_PAIRS = 41
NUM_EVALUATION_PAIRS = 9
NUM_EVALUATION_BATCHES = 40
"""About the 5,000 validation images on which a search judges a candidate."""
BATCH_SIZE = 128
MAX_TRAINING_RATIO = 1.05
MAX_EVALUATION_RATIO = 1.02


@pytest.fixture(scope="module")
def supernet() -> Supernet:
    torch.manual_seed(0)
    return Supernet(hybrid_tiny(num_channels=1))


@pytest.fixture(scope="module", name="x_BCHW")
def images() -> torch.Tensor:
    return torch.randn(BATCH_SIZE, 1, 32, 32).contiguous(memory_format=torch.channels_last)


def architectures(supernet: Supernet) -> dict[str, Architecture]:
    space, rng = supernet.space, np.random.default_rng(0)
    named = {"smallest": space.smallest(), "middle": space.middle(), "largest": space.largest()}
    return named | {f"random {index}": space.sample(rng) for index in range(NUM_RANDOM)}


def time_ms(run: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - start_s)


def ratio_of(shared: Callable[[], object], plain: Callable[[], object], *, num_pairs: int) -> tuple[float, float]:
    """Median plain time in ms, and the median ratio of shared to plain over pairs in alternating order."""
    for run in (shared, plain):
        run()
    times = []
    for index in range(num_pairs):
        if index % 2:
            shared_ms, plain_ms = time_ms(shared), time_ms(plain)
        else:
            plain_ms, shared_ms = time_ms(plain), time_ms(shared)
        times.append((plain_ms, shared_ms / plain_ms))
    plain_ms, ratio = np.median(np.array(times), axis=0)
    return float(plain_ms), float(ratio)


def report(title: str, rows: dict[str, tuple[float, float]]) -> float:
    """Print a row an architecture; returns the geometric mean of the ratios."""
    print(f"\n{title}, hybrid-tiny, batch {BATCH_SIZE}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{'architecture':<12} {'plain ms':>9} {'ratio':>6}")
    for name, (plain_ms, ratio) in rows.items():
        print(f"{name:<12} {plain_ms:>9.1f} {ratio:>6.3f}")
    mean = float(np.exp(np.mean([np.log(ratio) for _, ratio in rows.values()])))
    print(f"{'mean':<12} {'':>9} {mean:>6.3f}")
    return mean


def test_a_training_step_costs_little_more_than_the_plain_modules(supernet: Supernet, x_BCHW: torch.Tensor) -> None:
    labels_B = torch.arange(BATCH_SIZE) % 10
    rows = {}
    for name, architecture in architectures(supernet).items():
        module = supernet.extract(architecture).train()

        def plain(module: nn.Module = module) -> None:
            module.zero_grad()
            F.cross_entropy(module(x_BCHW), labels_B).backward()

        def shared(architecture: Architecture = architecture) -> None:
            network = supernet.subnet(architecture)
            F.cross_entropy(network(x_BCHW), labels_B).backward()
            supernet.scatter(network)

        rows[name] = ratio_of(shared, plain, num_pairs=NUM_STEP_PAIRS)
    assert report("training step", rows) <= MAX_TRAINING_RATIO


@torch.no_grad()
def test_an_evaluation_costs_little_more_than_the_plain_modules(supernet: Supernet, x_BCHW: torch.Tensor) -> None:
    batches = [x_BCHW] * NUM_EVALUATION_BATCHES
    rows = {}
    for name, architecture in architectures(supernet).items():
        module = supernet.extract(architecture).eval()

        def plain(module: nn.Module = module) -> None:
            for batch_BCHW in batches:
                module(batch_BCHW)

        def shared(architecture: Architecture = architecture) -> None:
            network = supernet.subnet(architecture, training=False)
            for batch_BCHW in batches:
                network(batch_BCHW)

        rows[name] = ratio_of(shared, plain, num_pairs=NUM_EVALUATION_PAIRS)
    assert report("evaluation", rows) <= MAX_EVALUATION_RATIO
