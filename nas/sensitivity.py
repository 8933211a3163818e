"""What each precision of a block does to an architecture, one block at a time, and policies allocated from that."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from hardware_profiles.profile import HardwareProfile
from nas.allocation import allocate
from nas.data import ImageData
from nas.errors import CandidateError
from nas.evaluation import batches, images_at_once
from nas.progress import Progress, no_progress
from search_spaces import Architecture, BlockSpec, Network, SearchSpace
from search_spaces.blocks import block_class
from search_spaces.cost import block_cost
from search_spaces.network import run_block
from search_spaces.precision import BITS, Candidate, QuantizationPolicy, canonical_policy

NUM_IMAGES = 1024
"""Validation images a divergence is averaged over."""

COSTS = ("latency_ms", "size_bytes", "mac_bits")
"""Columns that a policy's budget can be about; each is a sum over blocks."""


def measure_sensitivity(
    network_of: Callable[[Candidate], Network],
    architecture: Architecture,
    *,
    space: SearchSpace,
    profile: HardwareProfile,
    data: ImageData,
    num_images: int = NUM_IMAGES,
    progress: Progress = no_progress,
) -> pd.DataFrame:
    """Damage and gain of every block in every precision the target has for it, all other blocks in fp32.

    The damage is the mean Kullback-Leibler divergence of the quantized network's class probabilities from those of the
    fp32 one: smooth where an error rate counts a few flipped images. It is taken on evenly spaced *validation* images:
    on training images, which the weights and the activation ranges were fitted to, it would look smaller than it is.

    Args:
        network_of: what the runtime computes for a candidate, in torch (`nas.evaluator.Evaluator.network`).
        num_images: at most so many images.

    Returns:
        A row a block and precision, in order of the blocks, fp32 first:
        block, precision.
        divergence: in nats; lower is better, 0 for fp32.
        error_change: points of top-1 error more than in fp32 (their standard error is in the tenths).
        latency_ms, size_bytes: of the profile's row; mac_bits: MACs x bits of weights x bits of activations.
        latency_gain_ms, size_gain_bytes: how much less than in fp32; negative where the precision costs more.
    """
    specs = space.blocks(architecture)
    replaced = _quantized_blocks(network_of, architecture, specs, profile)
    split = data.validation.spread(num_images)
    network = network_of(Candidate(architecture=architecture))
    damage = {key: np.zeros(2) for key in replaced}
    num_at_once = images_at_once(split.images_BCHW, group=profile.batch_size)
    labels = split.labels_B.split(num_at_once)
    for index, x_BCHW in enumerate(batches(split.images_BCHW, data, num_at_once)):
        logits_BK, changed_BK = _change_each(network, replaced, x_BCHW)
        for key in replaced:
            damage[key] += _damage(logits_BK, changed_BK[key], labels[index])
        progress(index + 1, len(labels), "images seen in every precision")
    means = {key: total / len(split) for key, total in damage.items()}
    return pd.DataFrame([row for place in range(len(specs)) for row in _rows(place, specs[place], profile, means)])


def policy_budgets(
    table: pd.DataFrame, *, cost: str = "latency_ms", fractions: Sequence[float] = (0.0, 0.25, 0.5, 0.75)
) -> list[float]:
    """Budgets for `allocate_policy`, at these fractions of the way from the least possible cost to that of fp32."""
    least = float(_possible(table).groupby("block")[cost].min().sum())
    fp32 = float(table.loc[table["precision"] == "fp32", cost].sum())
    return [least + fraction * (fp32 - least) for fraction in fractions]


def allocate_policy(
    specs: Sequence[BlockSpec], table: pd.DataFrame, *, cost: str = "latency_ms", budget: float
) -> QuantizationPolicy:
    """The policy of least summed divergence whose blocks' summed `cost` is at most `budget`.

    Damage is taken to add up over blocks. A latency is the sum of the profile's rows, without the call and before any
    correction by whole networks.

    Args:
        specs: the blocks of the architecture that `table` (from `measure_sensitivity`) is about.
        cost: one of `COSTS`.
        budget: in the unit of that column; `policy_budgets` gives some.

    Raises:
        UserError: no policy costs so little.
    """
    possible = _possible(table)
    blocks = [possible[possible["block"] == spec.name] for spec in specs]
    chosen = allocate([b[cost].tolist() for b in blocks], [b["divergence"].tolist() for b in blocks], budget)
    names = (block["precision"].iloc[option] for block, option in zip(blocks, chosen, strict=True))
    return canonical_policy(specs, {spec.name: name for spec, name in zip(specs, names, strict=True)})


def _quantized_blocks(
    network_of: Callable[[Candidate], Network],
    architecture: Architecture,
    specs: Sequence[BlockSpec],
    profile: HardwareProfile,
) -> dict[tuple[int, str], nn.Module]:
    """By (place, precision) each block in each of its precisions but fp32; one that can't be is left out."""
    found = {}
    for place, spec in enumerate(specs):
        for precision in (p for p in block_class(spec.kind).precisions if p in profile.precisions and p != "fp32"):
            policy = QuantizationPolicy(precisions=((spec.name, precision),))
            with suppress(CandidateError):
                changed = network_of(Candidate(architecture=architecture, policy=policy))
                found[place, precision] = changed.blocks[place]
    return found


def _possible(table: pd.DataFrame) -> pd.DataFrame:
    """The table without precisions in which a network gives no numbers."""
    return table[np.isfinite(table["divergence"])]


@torch.no_grad()
def _change_each(
    network: Network, replaced: Mapping[tuple[int, str], nn.Module], x_BCHW: torch.Tensor
) -> tuple[torch.Tensor, dict[tuple[int, str], torch.Tensor]]:
    """Logits of a network, and of it with one block replaced at a time; the blocks before that one run once for all."""
    specs, out = network.specs, network.specs[-1].writes[0].stream
    streams, found = {specs[0].reads[0].stream: x_BCHW}, {}
    for place, (spec, block) in enumerate(zip(specs, network.blocks, strict=True)):
        for key in (key for key in replaced if key[0] == place):
            branch = dict(streams)
            run_block(spec, replaced[key], branch)
            for later in range(place + 1, len(specs)):
                run_block(specs[later], network.blocks[later], branch)
            found[key] = branch[out]
        run_block(spec, block, streams)
    return streams[out], found


def _damage(logits_BK: torch.Tensor, changed_BK: torch.Tensor, labels_B: torch.Tensor) -> np.ndarray:
    """Divergence, and how many more images are wrong, summed over images."""
    log_p_BK, log_q_BK = (F.log_softmax(values.double(), dim=1) for values in (logits_BK, changed_BK))
    divergence = F.kl_div(log_q_BK, log_p_BK, reduction="sum", log_target=True).clamp(min=0)
    wrong, changed_wrong = ((values.argmax(dim=1) != labels_B).sum() for values in (logits_BK, changed_BK))
    return np.array([float(divergence), float(changed_wrong - wrong)])


def _rows(
    place: int, spec: BlockSpec, profile: HardwareProfile, means: Mapping[tuple[int, str], np.ndarray]
) -> Iterator[dict[str, object]]:
    """The table's rows of one block."""
    macs, fp32 = block_cost(spec).macs, profile.rows[profile.row(spec.cost_key, "fp32")]
    for precision in ("fp32", *(p for at, p in means if at == place)):
        divergence, more_wrong = means.get((place, precision), np.zeros(2))
        row, (weight_bits, activation_bits) = profile.rows[profile.row(spec.cost_key, precision)], BITS[precision]
        yield {
            "block": spec.name,
            "precision": precision,
            "divergence": float(divergence),
            "error_change": 100 * float(more_wrong),
            "latency_ms": row.latency_ms,
            "size_bytes": row.size_bytes,
            "mac_bits": macs * weight_bits * activation_bits,
            "latency_gain_ms": fp32.latency_ms - row.latency_ms,
            "size_gain_bytes": fp32.size_bytes - row.size_bytes,
        }
