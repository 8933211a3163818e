"""Measure what a space costs on this device: every distinct block in every precision, and some whole networks."""

import dataclasses
import importlib.metadata
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import onnx
import torch

from hardware_profiles.device import describe_device
from hardware_profiles.measure import LatencyStats, Sampler, measure_interleaved
from hardware_profiles.profile import BlockRow, HardwareProfile, NetworkRow
from hardware_profiles.runtimes import Runtime
from nas.calibration import calibrate
from nas.errors import UserError
from nas.onnx_model import chain, export_block, quantize_block
from nas.progress import Progress
from nas.saturation import find_weight_bits
from predictors.latency import LatencyPredictor
from predictors.metrics import prediction_metrics
from search_spaces import Network, SearchSpace
from search_spaces.blocks import block_class
from search_spaces.precision import PRECISIONS, CandidateSpace

NUM_FIT, NUM_HELD_OUT = 24, 12
"""Whole networks that correct the sum of blocks, and others that judge the correction."""

SHARE_FOR_BLOCKS = 0.6
"""Of the time budget, what goes to blocks; whole networks get the rest."""

EMPTY_KEY = "empty call"


class _Model(NamedTuple):
    """One block in one precision, ready to measure."""

    key: str
    precision: str
    model: onnx.ModelProto


def profile_device(
    space: SearchSpace,
    *,
    runtime: Runtime,
    name: str = "local",
    batch_size: int = 1,
    budget_s: float = 60.0,
    seed: int = 0,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> HardwareProfile:
    """Profile `space` under `runtime` on the device this runs on.

    Args:
        budget_s: seconds for measuring; making the models takes some more.
        seed: decides weights, inputs and which whole networks are measured.

    Raises:
        UserError: the budget is too short to measure anything, or the runtime's int8 is wrong here.
    """
    if budget_s <= 0:
        raise UserError(f"budget of {budget_s} s; profiling needs a positive number of seconds, such as 60")
    report = progress or (lambda done, total, message="": None)
    started, device = clock(), describe_device()
    precisions = tuple(p for p in PRECISIONS if p in runtime.precisions)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        weight_bits = find_weight_bits(runtime)
        models = list(_block_models(space, precisions, batch_size, weight_bits, report))
    empty = _Model(EMPTY_KEY, "fp32", _identity(space, batch_size))
    block_budget_s = budget_s * SHARE_FOR_BLOCKS
    block_stats = _measure([empty, *models], runtime, block_budget_s, _part(report, 0.2, 0.7, "measuring blocks"))
    call_ms = block_stats[0].median_ms
    rows = tuple(_row(model, stats, call_ms) for model, stats in zip(models, block_stats[1:], strict=True))
    networks = _networks(space, precisions, seed, {(m.key, m.precision): m.model for m in models})
    part = _part(report, 0.7, 1.0, "measuring whole networks")
    network_stats = _measure([model for _, model in networks], runtime, budget_s - block_budget_s, part)
    measured = tuple(
        NetworkRow(
            blocks=blocks,
            latency_ms=stats.median_ms,
            spread_pct=stats.spread_pct,
            role="held-out" if index % 3 == 2 else "fit",
        )
        for index, ((blocks, _), stats) in enumerate(zip(networks, network_stats, strict=True))
    )
    profile = HardwareProfile(
        name=name,
        device=device,
        runtime=runtime.name,
        runtime_version=runtime.version,
        num_threads=runtime.num_threads,
        batch_size=batch_size,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        space=space.name,
        space_fingerprint=space.fingerprint,
        precisions=precisions,
        weight_bits=weight_bits,
        call_overhead_ms=call_ms,
        rows=rows,
        networks=measured,
        seconds=clock() - started,
        versions={package: importlib.metadata.version(package) for package in ("torch", "onnx", "onnxruntime")},
    )
    report(1, 1, "done")
    return dataclasses.replace(profile, held_out=held_out_metrics(profile))


def _part(report: Progress, start: float, end: float, part: str) -> Progress:
    """Progress of one part of a stage as progress of the stage, which goes from 0 to 1."""

    def forward(done: float, total: float, message: str = "") -> None:
        report(start + (end - start) * done / total, 1, part)

    return forward


def held_out_metrics(profile: HardwareProfile) -> dict[str, float]:
    """How well the profile predicts its own held-out networks."""
    held_out = [row for row in profile.networks if row.role == "held-out"]
    predicted = LatencyPredictor.from_profile(profile).predict([row.blocks for row in held_out])
    return dict(prediction_metrics([row.latency_ms for row in held_out], predicted))


def num_rows(space: SearchSpace, precisions: Sequence[str] = PRECISIONS) -> int:
    """How many block rows a profile of the space has."""
    kinds = {spec.cost_key: block_class(spec.kind).precisions for spec in space.block_specs()}
    return sum(len([p for p in found if p in precisions]) for found in kinds.values())


def _block_models(
    space: SearchSpace, precisions: Sequence[str], batch_size: int, bits: int, report: Progress
) -> Iterator[_Model]:
    """One export a block shape serves all precisions."""
    specs = {spec.cost_key: spec for spec in space.block_specs()}
    for index, (key, spec) in enumerate(specs.items()):
        if len(spec.reads) > 1:
            raise UserError(
                f"block '{key}' reads {len(spec.reads)} streams, which profiling doesn't support yet; use one"
            )
        network, x = Network([spec], [spec.build()]), torch.randn(8, *spec.reads[0].shape)
        network.train()(x)  # batch-norm statistics that are not all the same
        network = network.deploy()
        ranges = calibrate(network, x)[spec.name]
        exported = export_block(network.blocks[0], spec, batch_size=batch_size)
        for precision in block_class(spec.kind).precisions:
            if precision in precisions:
                yield _Model(key, precision, quantize_block(exported, precision, ranges, weight_bits=bits))
        report(0.2 * (index + 1) / len(specs), 1, "exporting blocks")


def _identity(space: SearchSpace, batch_size: int) -> onnx.ModelProto:
    shape = [batch_size, space.num_channels, space.image_size, space.image_size]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("x_in", "x_out")]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x_in"], ["x_out"])], "empty", ends[:1], ends[1:]
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def _networks(
    space: SearchSpace,
    precisions: Sequence[str],
    seed: int,
    models: dict[tuple[str, str], onnx.ModelProto],
) -> list[tuple[tuple[tuple[str, str], ...], _Model]]:
    """Whole networks of the measured blocks: extremes in uniform precisions, then random architectures and policies."""
    rng = np.random.default_rng(seed)
    candidates = CandidateSpace(space, precisions=precisions)
    named = [space.smallest(), space.middle(), space.largest()]
    chosen = [candidates.uniform(architecture, precision) for precision in precisions for architecture in named]
    while len(chosen) < NUM_FIT + NUM_HELD_OUT:
        genes = {choice.name: choice.values[rng.integers(len(choice.values))] for choice in candidates.choices}
        candidate = candidates.candidate(genes)
        if rng.random() < 0.3:
            candidate = candidates.uniform(candidate.architecture, precisions[int(rng.integers(len(precisions)))])
        chosen.append(candidate)
    result = []
    for candidate in chosen:
        specs = space.blocks(candidate.architecture)
        blocks = tuple((spec.cost_key, candidate.policy[spec.name]) for spec in specs)
        parts = []
        for pair in blocks:
            part = onnx.ModelProto()
            part.CopyFrom(models[pair])
            parts.append(part)
        result.append((blocks, _Model("network", "mixed", chain(parts, specs))))
    return result


def _measure(models: Sequence[_Model], runtime: Runtime, budget_s: float, progress: Progress) -> list[LatencyStats]:
    rng = np.random.default_rng(0)

    def load(item: _Model) -> Sampler:
        session = runtime.load(item.model.SerializeToString())
        value = item.model.graph.input[0]
        shape = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        return session.sampler({value.name: rng.standard_normal(shape, dtype=np.float32)})

    return measure_interleaved([load(item) for item in models], budget_s=budget_s, progress=progress)


def _row(model: _Model, stats: LatencyStats, call_ms: float) -> BlockRow:
    prefixed = onnx.compose.add_prefix(model.model, prefix="stage1.block1.token_mixer/")
    return BlockRow(
        key=model.key,
        precision=model.precision,
        latency_ms=max(0.0, stats.median_ms - call_ms),
        spread_pct=stats.spread_pct,
        num_runs=stats.num_runs,
        size_bytes=prefixed.ByteSize(),
    )
