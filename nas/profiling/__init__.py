"""Measure what a space costs on a device: every distinct block in every precision, and some whole networks."""

from nas.profiling.assemble import Measurements, assemble_profile, held_out_metrics
from nas.profiling.local import measure_plan, profile_device
from nas.profiling.plan import ProfilePlan, num_rows, plan_profile
from nas.profiling.transferred import NUM_SAMPLES, check_sources, transfer_profile

__all__ = [
    "NUM_SAMPLES", "Measurements", "ProfilePlan", "assemble_profile", "check_sources", "held_out_metrics",
    "measure_plan", "num_rows", "plan_profile", "profile_device", "transfer_profile",
]  # fmt: skip
