"""Measure the profiles that ship, and how far their predictions are off, on a machine that does nothing else.

    python -m tests.benchmarks.shipped_profiles --prefix x86-avx512vnni [--only openvino-hybrid-tiny ...]

Each is `tests.benchmarks.latency_accuracy` with the options in `TARGETS`; profiles go to `hardware_profiles/devices`,
tables to `results/devices`. All of them take more than an hour and a half.
"""

from pathlib import Path
from typing import Any

from cyclopts import run

from tests.benchmarks.latency_accuracy import measure_accuracy

TARGETS: dict[str, dict[str, Any]] = {
    "onnxruntime": {},
    "onnxruntime-2-threads": {"threads": 2},
    "openvino": {"runtime": "openvino"},
    "browser": {"runtime": "browser"},
}
SPACES: dict[str, dict[str, Any]] = {
    "hybrid-tiny": {"budget": "150s", "num_held_out": 100},
    "hybrid-mobile": {"budget": "10m", "num_held_out": 48},
}
"""Of the networks of hybrid-mobile some have no time, so there are more than the forty that are wanted."""
SLOWER: dict[tuple[str, str], dict[str, Any]] = {
    ("onnxruntime-2-threads", "hybrid-tiny"): {"budget": "8m"},
    ("onnxruntime-2-threads", "hybrid-mobile"): {"budget": "16m"},
    ("openvino", "hybrid-tiny"): {"budget": "6m"},
    ("openvino", "hybrid-mobile"): {"budget": "10m", "num_fit": 128},
    ("browser", "hybrid-tiny"): {"budget": "6m"},
    ("browser", "hybrid-mobile"): {"num_fit": 80},
}
"""Overrides what `SPACES` says where a first call, or every call, takes longer, or quiet moments are rare."""


def measure_shipped(*, prefix: str, only: list[str] | None = None) -> None:
    """Profiles of this machine under names that begin with `prefix`; all of them, or those in `only`."""
    for target, options in TARGETS.items():
        for space, usual in SPACES.items():
            if only and f"{target}-{space}" not in only:
                continue
            name = f"{prefix}-{target}"
            folder = Path("hardware_profiles/devices") / name
            folder.mkdir(parents=True, exist_ok=True)
            print(f"{name}, {space}", flush=True)
            measure_accuracy(
                space=space,
                name=name,
                profile=folder / f"profile-{space}.json",
                output=Path("results/devices") / f"{name}-{space}.csv",
                **options,
                **(usual | SLOWER.get((target, space), {})),
            )


if __name__ == "__main__":
    run(measure_shipped)
