"""The processor and memory of the machine this runs on. Needs nothing but Python, so that it can travel."""

import math
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

FLAGS = {
    "avx2": ("avx2",),
    "avx512f": ("avx512f",),
    "avx512_vnni": ("avx512_vnni",),
    "avx_vnni": ("avx_vnni",),
    "avx512_bf16": ("avx512_bf16",),
    "amx_int8": ("amx_int8",),
    "neon": ("neon", "asimd"),
    "dotprod": ("asimddp",),
    "i8mm": ("i8mm",),
    "sve": ("sve",),
}
"""Instruction sets that decide which kernels a runtime picks, and the names Linux gives them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """What a measurement was taken on."""

    processor: str
    """Marketing name as the system gives it."""
    flags: tuple[str, ...]
    """Those of `FLAGS` the processor has; empty when the system doesn't tell."""
    num_cores: int
    """Logical cores this process may use."""
    memory_gb: float
    """Installed memory in GB (10^9 bytes); 0 where the system doesn't tell, as Windows."""
    platform: str
    """Operating system, release and architecture."""


def describe_device(*, cpuinfo: Path = Path("/proc/cpuinfo")) -> DeviceInfo:
    """Describe this machine: processor and flags from `cpuinfo` on Linux, a name from Python's `platform` elsewhere."""
    processor, flags = parse_cpuinfo(cpuinfo.read_text()) if cpuinfo.is_file() else ("", ())
    return DeviceInfo(
        processor=processor or platform.processor() or platform.machine() or "unknown",
        flags=flags,
        num_cores=_num_cores(),
        memory_gb=round(_memory_bytes() / 1e9, 1),
        platform=f"{platform.system()} {platform.release()} {platform.machine()}".strip(),
    )


def parse_cpuinfo(text: str) -> tuple[str, tuple[str, ...]]:
    """Processor name ("" when absent, as on most ARM systems) and the `FLAGS` found in the text of /proc/cpuinfo."""
    name = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", text, re.MULTILINE)
    listed = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    present = set(listed.group(1).split()) if listed else set()
    flags = tuple(flag for flag, aliases in FLAGS.items() if present.intersection(aliases))
    return (name.group(1).strip() if name else ""), flags


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux only; respects taskset and containers' cpusets
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int:
    names = ("SC_PAGE_SIZE", "SC_PHYS_PAGES")
    known = getattr(os, "sysconf_names", {})
    return math.prod(os.sysconf(name) for name in names) if known.keys() >= set(names) else 0
