"""Is this machine the one that a profile is of?"""

from hardware_profiles.device import describe_device
from hardware_profiles.errors import ProfileError
from hardware_profiles.profile import HardwareProfile
from hardware_profiles.runtimes import Runtime, get_runtime
from nas.errors import UserError


class OtherTargetError(UserError):
    """What was to be measured can't be on this machine; says in one line why, and on which it can."""


def target_runtime(profile: HardwareProfile) -> Runtime:
    """The runtime of a profile, on the device that the profile is of.

    Raises:
        OtherTargetError: this machine is another device, or the runtime can't be had here or lacks a precision.
    """
    here = describe_device()
    if (here.processor, here.flags) != (profile.device.processor, profile.device.flags):
        raise OtherTargetError(f"the profile is of {profile.device.processor}, this machine is {here.processor}")
    try:
        runtime = get_runtime(profile.runtime, num_threads=profile.num_threads, device=profile.runtime_device)
        check_runtime(runtime, profile)
    except (ProfileError, UserError) as error:
        raise OtherTargetError(str(error)) from error
    return runtime


def check_runtime(runtime: Runtime, profile: HardwareProfile) -> None:
    """UserError when the runtime can't execute every precision that the profile was measured in."""
    lacking = [precision for precision in profile.precisions if precision not in runtime.precisions]
    if lacking:
        raise UserError(
            f"runtime '{runtime.name}' {runtime.version} lacks {', '.join(lacking)} of profile '{profile.name}'; "
            "install a version that has it, or profile this one with `nas profile`"
        )


def name_target(profile: HardwareProfile) -> str:
    """Device and runtime in a few words, such as "AMD EPYC with openvino 2026.4.1"."""
    on = f" on {profile.runtime_device}" if profile.runtime_device not in ("", "CPU") else ""
    return f"{profile.device.processor} with {profile.runtime} {profile.runtime_version}{on}"
