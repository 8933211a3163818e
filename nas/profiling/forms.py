"""Which blocks a device wants with point-wise layers as convolutions: some of each kind in both forms tell."""

from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np
import onnx
import torch

from hardware_profiles.errors import ProfileError
from hardware_profiles.loading import noise
from hardware_profiles.measure import measure_interleaved
from hardware_profiles.runtimes import Runtime
from nas.onnx_model import export_block, quantize_block
from nas.profiling.plan import model_input, random_block, repeated
from search_spaces import BlockSpec, SearchSpace
from search_spaces.blocks.layers import PointwiseBlock
from search_spaces.cost import block_cost

PRECISIONS = ("fp32", "int8", "bf16")
"""Those that have the choice: dynamic and weight-only ones quantize products of matrices alone."""

BUDGET_S = 4.0
NUM_BLOCKS = 3
"""Of each kind, from the least to the most work."""

TIE = 1.02
"""What convolutions may cost more: beside each other they save what a block that is timed alone doesn't show."""


def find_convolutions(
    space: SearchSpace, runtime: Runtime, *, batch_size: int = 1, weight_bits: int = 8, budget_s: float = BUDGET_S
) -> tuple[tuple[str, str], ...]:
    """Kinds and precisions of blocks that run faster here with 1x1 convolutions than with products of matrices.

    Their weights are random. `budget_s` seconds are for timing; loading takes some more.
    """
    precisions = [precision for precision in PRECISIONS if precision in runtime.precisions]
    chosen, found = _chosen_blocks(space), []
    pairs = [(kind, precision) for kind in chosen for precision in precisions]
    for kind, precision in pairs:
        with suppress(ProfileError):  # profiling will tell what the runtime refuses
            samplers = []
            for spec in chosen[kind]:
                for model in _both_forms(spec, runtime, precision, batch_size, weight_bits):
                    name, shape = model_input(model)
                    samplers.append(runtime.load(model.SerializeToString()).sampler({name: noise(shape)}))
            stats = measure_interleaved(samplers, budget_s=budget_s / len(pairs))
            products_ms, convolutions_ms = np.array([item.latency_ms for item in stats]).reshape(-1, 2).sum(axis=0)
            if convolutions_ms <= TIE * products_ms:
                found.append((kind, precision))
    return tuple(found)


def unmeasured_convolutions(space: SearchSpace) -> tuple[tuple[str, str], ...]:
    """For a device that can't be asked: in fp32 ONNX Runtime was faster with them on both processors tried."""
    return tuple((kind, "fp32") for kind in _chosen_blocks(space))


def _chosen_blocks(space: SearchSpace) -> dict[str, list[BlockSpec]]:
    """Some blocks of each kind that has both forms."""
    kinds: dict[str, dict[str, BlockSpec]] = {}
    for spec in space.block_specs():
        kinds.setdefault(spec.kind, {})[spec.cost_key] = spec
    chosen = {}
    for kind, specs in kinds.items():
        ordered = sorted(specs.values(), key=lambda spec: block_cost(spec).macs)
        places = np.linspace(0, len(ordered) - 1, min(NUM_BLOCKS, len(ordered))).round().astype(int)
        if isinstance(ordered[0].build().eval().deploy(), PointwiseBlock):
            chosen[kind] = [ordered[place] for place in places]
    return chosen


def _both_forms(
    spec: BlockSpec, runtime: Runtime, precision: str, batch_size: int, weight_bits: int
) -> Iterator[onnx.ModelProto]:
    forms: Sequence[Sequence[tuple[str, str]]] = ((), ((spec.kind, precision),))
    for convolutions in forms:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            block, ranges = random_block(spec, signed=runtime.signed_activations, convolutions=convolutions)
        exported = export_block(block, spec, batch_size=batch_size, precision=precision)
        yield repeated(quantize_block(exported, precision, ranges, weight_bits=weight_bits), spec)
