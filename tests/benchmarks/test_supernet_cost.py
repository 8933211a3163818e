"""What sharing weights costs: gather, forward, backward and scatter against the plain module's forward and backward.

Ratios of paired runs, in alternating order; geometric mean over architectures of the median ratio.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nas.data import from_arrays
from nas.supernet import Supernet
from nas.training import TrainOptions, train_supernet
from nas.training.batches import RawBatch, load_batches
from nas.training.loop import train_step
from nas.training.state import TrainState, new_state
from nas.training.strategies import get_strategy
from search_spaces import Architecture, hybrid_tiny
from search_spaces.hybrid import HybridSpace

NUM_RANDOM = 3
NUM_STEP_PAIRS = 41
NUM_EVALUATION_PAIRS = 9
NUM_EVALUATION_BATCHES = 40
"""About the 5,000 validation images on which a search judges a candidate."""
BATCH_SIZE = 128
MAX_TRAINING_RATIO = 1.05
MAX_EVALUATION_RATIO = 1.02
MAX_INPUT_PCT = 5.0
MAX_MEMORY_GIB = 6.0
SHAPE = {"image_size": 32, "stem_stride": 2, "head_dim": 16, "num_channels": 1}


@pytest.fixture(scope="module")
def supernet() -> Supernet:
    torch.manual_seed(0)
    return Supernet(hybrid_tiny(num_channels=1))


@pytest.fixture(scope="module", name="x_BCHW")
def images() -> torch.Tensor:
    x_BCHW = torch.empty(BATCH_SIZE, 1, 32, 32, memory_format=torch.channels_last)
    return x_BCHW.normal_()


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


def test_the_whole_step_is_reported_beside_it(x_BCHW: torch.Tensor) -> None:
    """Optimizer and moving average touch every shared weight, so their share is largest in small sub-networks."""
    labels_B = torch.arange(BATCH_SIZE) % 10
    noise_BCHW = torch.randint(0, 256, (10 * BATCH_SIZE, 1, 32, 32), dtype=torch.uint8)
    arrays = (noise_BCHW.numpy(), torch.arange(len(noise_BCHW)).numpy() % 10)
    data = from_arrays("noise", train=arrays, class_names=tuple("0123456789"), image_size=32)
    options, rows = TrainOptions(batch_size=BATCH_SIZE, strategy="single-path"), {}
    for name, architecture in architectures(Supernet(hybrid_tiny(num_channels=1))).items():
        supernet = Supernet(OneOf(hybrid_tiny(num_channels=1), architecture))
        state = new_state(supernet, get_strategy(options, supernet.space), options)
        raw = next(load_batches(data, options, num_views=1, shards=range(1), steps=range(1)))[0]
        module = supernet.extract(architecture).train()

        def plain(module: nn.Module = module) -> None:
            module.zero_grad()
            F.cross_entropy(module(x_BCHW), labels_B).backward()

        def whole(state: TrainState = state, raw: RawBatch = raw) -> None:
            train_step(state, data, options, {0: raw})

        rows[name] = ratio_of(whole, plain, num_pairs=NUM_STEP_PAIRS // 4)
    report("whole step with optimizer, moving average, normalising", rows)


class OneOf(HybridSpace):
    """The whole space, from which only one architecture is drawn."""

    def __init__(self, space: HybridSpace, drawn: Architecture):
        super().__init__(space.name, space.stages, **SHAPE)
        self._drawn = drawn

    def sample(self, rng: np.random.Generator) -> Architecture:
        return self._drawn


def test_images_are_never_what_a_step_waits_for(tmp_path: Path) -> None:
    """Share of the time of a short training that goes into drawing, moving and stacking images."""
    arrays = (np.random.default_rng(0).integers(0, 256, (6000, 3, 32, 32), dtype=np.uint8), np.arange(6000) % 10)
    data = from_arrays("noise", train=arrays, class_names=tuple("0123456789"), image_size=32)
    options = TrainOptions(num_epochs=1, max_shift=2, num_watched=0, checkpoint_steps=10_000)
    train_supernet(hybrid_tiny(), data, tmp_path, options=options)
    share_pct = json.loads((tmp_path / "supernet.json").read_text())["history"][-1]["input_pct"]
    print(f"\nimages: {share_pct:.2f}% of the time of training, batch {options.batch_size}, {options.strategy}")
    assert share_pct < MAX_INPUT_PCT


def test_memory_grows_with_the_subnetwork() -> None:
    """Peak of a process that trains one step of hybrid-mobile, 224 px, batch 8, beside the store's own copies."""
    print()
    for name in ("smallest", "middle", "largest"):
        command = [sys.executable, "-c", MEMORY_SCRIPT, name]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        before_gib, store_gib, peak_gib = map(float, output.split())
        rest_gib = peak_gib - before_gib - store_gib
        print(
            f"{name:<9} peak {peak_gib:.2f} GiB: {before_gib:.2f} libraries, {store_gib:.2f} store, {rest_gib:.2f} step"
        )
        assert peak_gib < MAX_MEMORY_GIB


MEMORY_SCRIPT = """
import resource, sys
import psutil
import torch
from nas.supernet import Supernet
from nas.training.options import TrainOptions
from nas.training.state import new_state
from nas.training.strategies import get_strategy
from search_spaces import hybrid_mobile
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
before = psutil.Process().memory_info().rss / 2**30
space, options = hybrid_mobile(), TrainOptions(strategy="single-path")
supernet = Supernet(space)
state = new_state(supernet, get_strategy(options, space), options)
store = 5 * 4 * len(supernet.flat) / 2**30
network = supernet.subnet(getattr(space, sys.argv[1])())
x = torch.randn(8, 3, 224, 224).contiguous(memory_format=torch.channels_last)
torch.nn.functional.cross_entropy(network(x), torch.arange(8)).backward()
supernet.scatter(network)
state.optimizer.step()
print(before, store, peak())
"""


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
