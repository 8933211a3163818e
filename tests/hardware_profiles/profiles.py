"""Profiles made up for tests."""

from dataclasses import replace
from zlib import crc32

from hardware_profiles.device import DeviceInfo
from hardware_profiles.profile import BlockRow, HardwareProfile, NetworkRow
from hardware_profiles.runtimes.onnx_runtime import OnnxRuntime
from search_spaces import SearchSpace
from search_spaces.blocks import block_class
from search_spaces.cost import block_cost
from search_spaces.precision import BITS

DEVICE = DeviceInfo(processor="Test CPU", flags=("avx2",), num_cores=2, memory_gb=8.0, platform="Linux 6.0 x86_64")


def make_profile(
    *,
    name: str = "test-device",
    space: str = "test-space",
    latency_ms: dict[tuple[str, str], float] | None = None,
    networks: tuple[NetworkRow, ...] = (),
    call_overhead_ms: float = 0.01,
) -> HardwareProfile:
    """A profile with the given rows; two blocks in two precisions by default."""
    costs = latency_ms or {("a", "fp32"): 1.0, ("a", "int8"): 0.5, ("b", "fp32"): 2.0, ("b", "int8"): 2.5}
    return HardwareProfile(
        name=name,
        device=DEVICE,
        runtime="onnxruntime",
        runtime_version="1.0",
        num_threads=1,
        batch_size=1,
        date="2026-01-01",
        space=space,
        space_fingerprint="0123456789abcdef",
        precisions=("fp32", "int8", "int8-dynamic"),
        weight_bits=8,
        call_overhead_ms=call_overhead_ms,
        rows=tuple(
            BlockRow(key=key, precision=precision, latency_ms=cost, spread_pct=1.0, num_runs=100)
            for (key, precision), cost in costs.items()
        ),
        networks=networks,
        held_out={"all": {"mape_pct": 3.5, "within_10pct": 95.0, "spearman": 0.95, "kendall": 0.9, "mae": 0.1}},
        seconds=12.5,
        versions={"onnx": "1.0"},
    )


def make_space_profile(space: SearchSpace) -> HardwareProfile:
    """A row for every block of a space in all that ONNX Runtime has; arbitrary times, most below those of fp32."""
    profile = make_profile(name="made-up", space=space.name)
    specs = {spec.cost_key: spec for spec in space.block_specs()}
    rows = [
        BlockRow(
            key=key,
            precision=precision,
            latency_ms=(0.5 + crc32(f"{key} {precision}".encode()) % 1000 / 1000) * (1.2 if precision == "fp32" else 1),
            spread_pct=1.0,
            num_runs=100,
            size_bytes=100 + block_cost(spec).num_params * BITS[precision][0] // 8,
        )
        for key, spec in specs.items()
        for precision in block_class(spec.kind).precisions
        if precision in OnnxRuntime.precisions
    ]
    return replace(profile, rows=tuple(rows), precisions=OnnxRuntime.precisions, space_fingerprint=space.fingerprint)
