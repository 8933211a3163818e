"""What the options of a run name: data and space, the recipe of training, an architecture, a profile."""

import json
from functools import partial
from pathlib import Path

from rich.console import Console

from hardware_profiles.device import describe_device
from hardware_profiles.profile import HardwareProfile, find_profile
from hardware_profiles.runtimes import Runtime, get_runtime
from nas.config import RunConfig
from nas.data import ImageData, load_data
from nas.errors import UserError
from nas.processes import num_processes
from nas.profiling import NUM_SAMPLES, check_sources, profile_device, transfer_profile
from nas.progress import Progress, rich_progress
from nas.search.executors import ExecutorOf, LocalExecutor
from nas.training import TrainOptions
from search_spaces import Architecture, SearchSpace, get_space

NAMED_ARCHITECTURES = ("smallest", "middle", "largest")


def load_inputs(config: RunConfig, *, console: Console | None = None) -> tuple[ImageData, SearchSpace]:
    """The data set, and the space with as many channels and classes as it has."""
    image_size = get_space(config.space).image_size
    with rich_progress("data", console=console, interval_s=10.0) as progress:
        data = load_data(config.data, image_size=image_size, num_validation=config.num_validation, progress=progress)
    return data, get_space(config.space, num_channels=data.num_channels, num_classes=data.num_classes)


def load_quietly(config: RunConfig) -> tuple[ImageData, SearchSpace]:
    """`load_inputs` for processes that show nothing."""
    return load_inputs(config, console=Console(quiet=True))


def train_options(config: RunConfig) -> TrainOptions:
    """The recipe of training that the options ask for; UserError when it is none."""
    values = {"num_shards": num_processes()} | dict(config.training)
    values |= {} if config.epochs is None else {"num_epochs": config.epochs}
    try:
        return TrainOptions.from_json(values)
    except TypeError as error:
        raise UserError(f"training options {values} can't be used: {error}") from None


def find_executor(config: RunConfig) -> ExecutorOf:
    """What evaluates candidates where the options say."""
    if config.executor == "local":
        return LocalExecutor
    from nas.search.ray_executor import RayExecutor

    return partial(RayExecutor, num_workers=config.workers, address=config.ray_address)


def find_architecture(space: SearchSpace, text: str) -> Architecture:
    """`smallest`, `middle`, `largest`, or what an `architecture.json` describes."""
    if text in NAMED_ARCHITECTURES:
        return {"smallest": space.smallest, "middle": space.middle, "largest": space.largest}[text]()
    path = Path(text)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content = content.get("architecture", content)
        found = Architecture.from_json(content)
    except OSError:
        names = ", ".join(NAMED_ARCHITECTURES)
        raise UserError(f"unknown architecture '{text}'; give {names}, or an architecture.json") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{text} describes no architecture; give an architecture.json of an exported model") from None
    if found.space != space.name:
        raise UserError(
            f"{text} is an architecture of space '{found.space}', not of '{space.name}'; choose its --space"
        )
    return space.architecture(found.genotype)


def fitting_profile(config: RunConfig, space: SearchSpace) -> HardwareProfile:
    """The profile the options name; UserError when it is not of this space, or not of these threads and batch."""
    profile = find_profile(config.hardware, space=space.name)
    if profile.space_fingerprint != space.fingerprint:
        raise UserError(
            f"profile '{config.hardware}' is of another version of '{space.name}', or of images with other channels or "
            "classes; profile that device again with `nas profile` and the same --data"
        )
    for name, wanted, given in (
        ("threads", config.threads, profile.num_threads),
        ("batch", config.batch, profile.batch_size),
    ):
        if wanted != given:
            raise UserError(
                f"profile '{config.hardware}' was measured with --{name} {given}, not {wanted}; use --{name} {given}"
            )
    device = profile.runtime_device or "CPU"
    if config.device is not None and config.device.lower() != device.lower():
        raise UserError(
            f"profile '{config.hardware}' was measured with --device {device}, not {config.device}; leave --device away"
        )
    return profile


def find_runtime(config: RunConfig) -> Runtime:
    """What the options say models run in on this machine."""
    return get_runtime(config.runtime, num_threads=config.threads, device=config.device or "")


def make_profile(config: RunConfig, space: SearchSpace, progress: Progress) -> HardwareProfile:
    """The profile the options name, whose runtime needn't be installed here, or this machine's, measured now."""
    if config.hardware != "local":
        return fitting_profile(config, space)
    runtime = find_runtime(config)
    if config.transfer_from:
        return transfer_profile(
            space,
            _sources(config, space),
            runtime=runtime,
            num_samples=config.samples or NUM_SAMPLES,
            batch_size=config.batch,
            budget_s=config.budget,
            progress=progress,
        )
    return profile_device(space, runtime=runtime, batch_size=config.batch, budget_s=config.budget, progress=progress)


def profile_inputs(config: RunConfig, space: SearchSpace) -> dict[str, str]:
    """What decides a profile, by name."""
    inputs = {"search space": f"{space.name} {space.fingerprint}"}
    if config.hardware != "local":
        return inputs | {"hardware": f"{config.hardware} {fitting_profile(config, space).fingerprint[:16]}"}
    if config.transfer_from:
        sources = " ".join(f"{source.name} {source.fingerprint[:16]}" for source in _sources(config, space))
        inputs |= {"transferred from": sources, "samples": str(config.samples or NUM_SAMPLES)}
    runtime = find_runtime(config)
    return inputs | {
        "hardware": f"local ({describe_device().processor})",
        "runtime": f"{runtime.name} {runtime.version}",
        **({} if config.device is None else {"device": runtime.device}),
        "threads": str(config.threads),
        "batch": str(config.batch),
    }


def _sources(config: RunConfig, space: SearchSpace) -> list[HardwareProfile]:
    sources = [find_profile(name, space=space.name) for name in config.transfer_from]
    check_sources(sources, space, config.batch)
    return sources
