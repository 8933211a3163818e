"""What has to be measured for a profile: the models of a space's blocks, and of some whole networks."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import onnx
import torch
from torch import nn

from hardware_profiles.rows import Blocks
from nas.calibration import OperatorRange, calibrate
from nas.errors import UserError
from nas.onnx_model import chain, export_block, quantize_block
from nas.profiling.features import informative_order, row_features
from nas.progress import Progress, no_progress
from search_spaces import BlockSpec, SearchSpace, build_network
from search_spaces.blocks import block_class
from search_spaces.precision import PRECISIONS, Candidate, CandidateSpace
from search_spaces.space import GeneValue, draw_indices

NUM_FIT, NUM_HELD_OUT = 192, 24
"""Whole networks that correct the sum of blocks, and others that judge the correction."""

SHARE_FP32, SHARE_UNIFORM = 0.25, 0.15
"""Of the random networks, those in fp32 alone and those in one random precision; the rest mixes precisions freely."""

NORM_BIAS_STD = 0.5
"""Between channels: without, networks in a browser are 10 to 20 % slower in int8, up to 15 % in fp32, than trained
ones, probably since branches of a ReLU can't be foreseen where signs are random."""

NUM_COPIES = 3
"""Of a block that can follow itself, in the model that is timed for its row: what a block that runs alone pays at its
ends, such as another layout of its tensors, neighbours in a network share."""

TILT = 2.0
"""Of the genes of random architectures, see `draw_indices`; without it none of 200 is near the ends of a front."""


BlockRanges = Mapping[str, OperatorRange]
"""Ranges of a block's operators, by path."""


class PlannedRow(NamedTuple):
    """One block in one precision."""

    key: str
    precision: str
    block: onnx.ModelProto
    size_bytes: int
    num_copies: int
    """Of the block, in the model that is timed."""
    make: Callable[[], onnx.ModelProto]

    @property
    def model(self) -> onnx.ModelProto:
        """What is timed, made at each look."""
        return self.make()


class PlannedNetwork(NamedTuple):
    """One whole network."""

    blocks: Blocks
    role: Literal["fit", "held-out"]
    make: Callable[[], onnx.ModelProto]

    @property
    def model(self) -> onnx.ModelProto:
        """Made of its blocks' models at each look: all networks of a plan together take gigabytes."""
        return self.make()

    @property
    def precisions(self) -> list[str]:
        """Those that its blocks have."""
        return sorted({precision for _, precision in self.blocks})


@dataclass(frozen=True, kw_only=True)
class ProfilePlan:
    """Models with fixed shapes and one input each; whoever times them can make a profile."""

    space: str
    space_fingerprint: str
    batch_size: int
    precisions: tuple[str, ...]
    weight_bits: int
    """Bits of the int8 weights in the models; that of the device may be another, at the same latency."""
    signed_activations: bool = False
    """Of static int8 in the models, and then of the device."""
    convolutions: tuple[tuple[str, str], ...] = ()
    """Kinds and precisions of blocks whose point-wise layers are convolutions in the models, and in files then."""
    empty: onnx.ModelProto
    """Hands one pixel of one channel on: what a call costs whatever it does.

    Handing a picture in and out costs a browser more than some blocks, whose rows would be zero in every precision.
    """
    rows: tuple[PlannedRow, ...]
    """Those that say most about the others first."""
    features_RF: np.ndarray
    """What is known of each row without measuring, see `row_features`."""
    networks: tuple[PlannedNetwork, ...]


def plan_profile(
    space: SearchSpace,
    precisions: Sequence[str],
    *,
    batch_size: int = 1,
    weight_bits: int = 8,
    signed_activations: bool = False,
    convolutions: Sequence[tuple[str, str]] = (),
    num_fit: int = NUM_FIT,
    num_held_out: int = NUM_HELD_OUT,
    seed: int = 0,
    progress: Progress | None = None,
) -> ProfilePlan:
    """Make the models of a profile.

    Args:
        precisions: those that blocks may have on the device.
        convolutions: kinds and precisions of blocks whose point-wise layers are convolutions there.
        num_fit: networks for the correction, the smallest, middle and largest in each precision among them.
        num_held_out: random networks that judge it.
        seed: decides weights and which whole networks there are.

    Raises:
        UserError: a block can't be profiled.
    """
    report = progress or no_progress
    known = tuple(precision for precision in PRECISIONS if precision in precisions)
    specs = {spec.cost_key: spec for spec in space.block_specs()}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        models: dict[tuple[str, str], onnx.ModelProto] = {}
        for index, spec in enumerate(specs.values()):
            deployed, ranges = random_block(spec, signed=signed_activations, convolutions=convolutions)
            for precision, model in _block_models(spec, deployed, ranges, known, batch_size, weight_bits):
                models[spec.cost_key, precision] = model
            report(index + 1, len(specs), "exporting blocks")
    rows = [_planned_row(specs[key], precision, model) for (key, precision), model in models.items()]
    features_RF = row_features([(specs[row.key], row.precision) for row in rows])
    order = informative_order(features_RF)
    return ProfilePlan(
        space=space.name,
        space_fingerprint=space.fingerprint,
        batch_size=batch_size,
        precisions=known,
        weight_bits=weight_bits,
        signed_activations=signed_activations,
        convolutions=tuple(convolutions),
        empty=empty_model((1, 1, 1, 1)),
        rows=tuple(rows[index] for index in order),
        features_RF=features_RF[order],
        networks=tuple(_networks(space, known, models, seed, num_fit, num_held_out)),
    )


def model_input(model: onnx.ModelProto) -> tuple[str, tuple[int, ...]]:
    """Name and shape of a planned model's input."""
    value = model.graph.input[0]
    return value.name, tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)


def num_rows(space: SearchSpace, precisions: Sequence[str] = PRECISIONS) -> int:
    """How many block rows a profile of the space has."""
    kinds = {spec.cost_key: block_class(spec.kind).precisions for spec in space.block_specs()}
    return sum(len([p for p in found if p in precisions]) for found in kinds.values())


def random_block(
    spec: BlockSpec, *, signed: bool, convolutions: Sequence[tuple[str, str]]
) -> tuple[nn.Module, BlockRanges]:
    """A deployed block of random weights, and the ranges of its operators."""
    key = spec.cost_key
    if len(spec.reads) > 1:
        raise UserError(f"block '{key}' reads {len(spec.reads)} streams, which profiling doesn't support yet; use one")
    network, x = build_network([spec]), torch.randn(8, *spec.reads[0].shape)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.bias, std=NORM_BIAS_STD)
    network.train()(x)  # batch-norm statistics that are not all the same
    deployed = network.deploy(convolutions)
    return deployed.blocks[0], calibrate(deployed, x, signed=signed)[spec.name]


def _block_models(
    spec: BlockSpec, block: nn.Module, ranges: BlockRanges, precisions: Sequence[str], batch_size: int, bits: int
) -> Iterator[tuple[str, onnx.ModelProto]]:
    """A block's models by precision."""
    for precision in block_class(spec.kind).precisions:
        if precision in precisions:
            exported = export_block(block, spec, batch_size=batch_size, precision=precision)
            yield precision, quantize_block(exported, precision, ranges, weight_bits=bits)


def _planned_row(spec: BlockSpec, precision: str, model: onnx.ModelProto) -> PlannedRow:
    size_bytes = onnx.compose.add_prefix(model, prefix="stage1.block1.token_mixer/").ByteSize()
    return PlannedRow(spec.cost_key, precision, model, size_bytes, num_copies(spec), partial(repeated, model, spec))


def num_copies(spec: BlockSpec) -> int:
    """How often `repeated` has a block."""
    return NUM_COPIES if spec.writes == spec.reads else 1


def repeated(model: onnx.ModelProto, spec: BlockSpec) -> onnx.ModelProto:
    """A block's model following itself, to be timed."""
    copies = [dataclasses.replace(spec, name=f"copy{index}") for index in range(num_copies(spec))]
    return chain([model] * len(copies), copies)


def empty_model(shape: Sequence[int]) -> onnx.ModelProto:
    """A model that hands an input of this shape on."""
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("x_in", "x_out")]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x_in"], ["x_out"])], "empty", ends[:1], ends[1:]
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def _networks(
    space: SearchSpace,
    precisions: Sequence[str],
    models: Mapping[tuple[str, str], onnx.ModelProto],
    seed: int,
    num_fit: int,
    num_held_out: int,
) -> Iterator[PlannedNetwork]:
    """Extremes in uniform precisions to fit, then random architectures and policies with both roles in turn."""
    rng = np.random.default_rng(seed)
    candidates = CandidateSpace(space, precisions=precisions)
    named = [space.smallest(), space.middle(), space.largest()]
    chosen = [candidates.uniform(architecture, precision) for precision in precisions for architecture in named]
    num_random = max(num_fit - len(chosen), 0) + num_held_out
    for index, candidate in enumerate([*chosen, *(_random(candidates, rng) for _ in range(num_random))]):
        place = index - len(chosen) + 1
        judges = place >= 1 and place * num_held_out // num_random > (place - 1) * num_held_out // num_random
        specs = space.blocks(candidate.architecture)
        blocks = tuple((spec.cost_key, candidate.policy[spec.name]) for spec in specs)
        make = partial(chain, [models[pair] for pair in blocks], specs)
        yield PlannedNetwork(blocks, "held-out" if judges else "fit", make)


def _random(candidates: CandidateSpace, rng: np.random.Generator) -> Candidate:
    """From small to large, as a search visits them; the policy at random, sometimes replaced by a uniform one."""
    num_genes, genes = len(candidates.space.choices), dict[str, GeneValue]()
    for choices, tilt in ((candidates.choices[:num_genes], TILT), (candidates.choices[num_genes:], 0.0)):
        [indices] = draw_indices([len(choice.values) for choice in choices], 1, rng=rng, tilt=tilt)
        genes |= {choice.name: choice.values[index] for choice, index in zip(choices, indices, strict=True)}
    candidate, kind = candidates.candidate(genes), rng.random()
    if kind >= SHARE_FP32 + SHARE_UNIFORM:
        return candidate
    precision = candidates.precisions[0 if kind < SHARE_FP32 else rng.integers(len(candidates.precisions))]
    return candidates.uniform(candidate.architecture, precision)
