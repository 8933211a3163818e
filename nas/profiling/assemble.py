"""A profile from what a device measured, wherever that was."""

import dataclasses
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from hardware_profiles.device import DeviceInfo
from hardware_profiles.measure import LatencyStats
from hardware_profiles.profile import BlockRow, HardwareProfile, NetworkRow
from nas.errors import UserError
from nas.profiling.features import MIN_ROWS, predict_rows
from nas.profiling.plan import PlannedRow, ProfilePlan
from predictors.latency import LatencyPredictor
from predictors.metrics import MIN_POINTS, prediction_metrics


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """What a device says about the models of a plan, and what it is."""

    device: DeviceInfo
    runtime: str
    runtime_version: str
    runtime_device: str = ""
    num_threads: int
    weight_bits: int
    """Bits of int8 weights whose products the runtime adds up exactly there."""
    call: LatencyStats
    """Of the empty model."""
    rows: tuple[LatencyStats | None, ...]
    """One for each of the plan's rows; None where time was too short, or the runtime refused it."""
    networks: tuple[LatencyStats | None, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    """What the runtime said, by precision, of models that it refused."""
    seconds: float = 0.0


def assemble_profile(plan: ProfilePlan, found: Measurements, *, name: str = "local") -> HardwareProfile:
    """The profile of the device that `found` comes from; rows that it lacks are predicted from the others.

    A precision with a refused model is left out.

    Raises:
        UserError: too little was measured, or even fp32 was refused.
    """
    if "fp32" in found.refused:
        raise UserError(f"{found.runtime} {found.runtime_version} refuses a model in fp32: {found.refused['fp32']}")
    kept = [(index, row) for index, row in enumerate(plan.rows) if row.precision not in found.refused]
    stats = [found.rows[index] for index, _ in kept]
    num_measured = sum(item is not None for item in stats)
    if num_measured < min(MIN_ROWS, len(stats)):
        raise UserError(f"only {num_measured} blocks were measured in the time; give a larger --budget")
    call_ms = found.call.latency_ms
    net_ms_R = np.array(
        [
            np.nan if s is None else max(0.0, s.latency_ms - call_ms) / row.num_copies
            for (_, row), s in zip(kept, stats, strict=True)
        ]
    )
    latency_ms_R = predict_rows(plan.features_RF[[index for index, _ in kept]], net_ms_R)
    rows = tuple(
        _row(row, float(latency_ms), s) for (_, row), latency_ms, s in zip(kept, latency_ms_R, stats, strict=True)
    )
    profile = profile_of(plan, found, rows, network_rows(plan, found), name=name)
    return dataclasses.replace(profile, held_out=held_out_metrics(profile))


def profile_of(
    plan: ProfilePlan, found: Measurements, rows: tuple[BlockRow, ...], networks: tuple[NetworkRow, ...], *, name: str
) -> HardwareProfile:
    """The profile of these rows and networks, with what `plan` and `found` say of space and target."""
    return HardwareProfile(
        name=name,
        device=found.device,
        runtime=found.runtime,
        runtime_version=found.runtime_version,
        runtime_device=found.runtime_device,
        num_threads=found.num_threads,
        batch_size=plan.batch_size,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        space=plan.space,
        space_fingerprint=plan.space_fingerprint,
        precisions=tuple(p for p in plan.precisions if p not in found.refused),
        weight_bits=found.weight_bits,
        signed_activations=plan.signed_activations,
        convolutions=plan.convolutions,
        call_overhead_ms=found.call.latency_ms,
        rows=rows,
        networks=networks,
        seconds=found.seconds,
        versions={package: importlib.metadata.version(package) for package in ("torch", "onnx", "onnxruntime")},
    )


def network_rows(plan: ProfilePlan, found: Measurements) -> tuple[NetworkRow, ...]:
    """The networks that were measured, without those of a refused precision."""
    return tuple(
        NetworkRow(blocks=network.blocks, latency_ms=s.latency_ms, spread_pct=s.spread_pct, role=network.role)
        for network, s in zip(plan.networks, found.networks, strict=True)
        if s is not None and not any(precision in found.refused for _, precision in network.blocks)
    )


def held_out_metrics(profile: HardwareProfile) -> dict[str, dict[str, float]]:
    """How well the profile predicts its own held-out networks: those in fp32, those in other precisions, and all.

    A group of fewer than three networks is left out.
    """
    held_out = [row for row in profile.networks if row.role == "held-out"]
    groups = {
        "fp32": [row for row in held_out if {precision for _, precision in row.blocks} == {"fp32"}],
        "mixed": [row for row in held_out if {precision for _, precision in row.blocks} != {"fp32"}],
        "all": held_out,
    }
    predictor = LatencyPredictor.from_profile(profile)
    return {
        group: prediction_metrics([row.latency_ms for row in rows], predictor.predict([row.blocks for row in rows]))
        for group, rows in groups.items()
        if len(rows) >= MIN_POINTS
    }


def _row(row: PlannedRow, latency_ms: float, stats: LatencyStats | None) -> BlockRow:
    return BlockRow(
        key=row.key,
        precision=row.precision,
        latency_ms=latency_ms,
        spread_pct=0.0 if stats is None else stats.spread_pct,
        num_runs=0 if stats is None else stats.num_runs,
        size_bytes=row.size_bytes,
        measured=stats is not None,
    )
