"""Groups of options that verbs of the command line share."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from nas.config import RunConfig, load_options, merge_options
from nas.errors import UserError

QUICKSTART = Path("results/quickstart")

Flag = Annotated[bool, Parameter(negative="")]
Names = Annotated[list[str] | None, Parameter(negative="")]

TRAINING_FLAGS = ("strategy", "init", "tracker")
"""Fields of `TrainFlags` that are options of training."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where a run lives and what it is about."""

    run: Path = QUICKSTART
    """Folder of the run; options given before are remembered in it."""
    config: Path | None = None
    """YAML file with options under the same names; flags win."""
    space: str | None = None
    """Search space: a name of `nas spaces`, or my_package.spaces:phone. [default: hybrid-tiny]"""
    data: str | None = None
    """fashion-mnist, cifar10, cifar100, a folder, or my_package.data:load. [default: fashion-mnist]"""
    num_validation: int | None = None
    """Images kept from training to judge candidates. [default: a tenth, at most 5,000]"""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TrainFlags:
    """Options of training."""

    epochs: int | None = None
    """Passes over the training images; more than before trains on."""
    strategy: str | None = None
    """Which sub-networks a step trains: a strategy, or my_package.strategies:MyStrategy. [default: single-path]"""
    init: str | None = None
    """Start from a trained network of the space: a folder made by `nas export`, or timm:NAME where the space has it."""
    tracker: str | None = None
    """tensorboard or mlflow: where figures of the training go as well."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TargetFlags:
    """What models are made for."""

    hardware: str | None = None
    """local (measure this machine), a name of `nas hardware`, or a profile's file. [default: local]"""
    runtime: str | None = None
    """What runs the models: onnxruntime, openvino, browser, litert, or my_package.runtimes:MyRuntime.
    [default: onnxruntime]"""
    device: str | None = None
    """What of the machine runs them: an execution provider of ONNX Runtime such as CUDA, or a device of OpenVINO such
    as GPU. [default: the processor]"""
    threads: int | None = None
    """Threads one run of a model may use. [default: 1]"""
    batch: int | None = None
    """Images a model sees at once. [default: 1]"""
    budget: str | None = None
    """Time for measuring, such as 60, 90s or 5m. [default: 40]"""
    transfer_from: Annotated[Names, Parameter(name="--from")] = None
    """Measure whole networks only, and predict their blocks from profiles of other devices: names of `nas hardware` or
    files; with commas."""
    samples: int | None = None
    """Whole networks that --from measures. [default: 20]"""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ElsewhereFlags:
    """Measuring on a device that has Python, onnxruntime and numpy, but not this project."""

    bundle: Path | None = None
    """Write a folder to copy to the device: `python3 run.py` in it measures there and writes result.json."""
    import_file: Annotated[Path | None, Parameter(name="--import")] = None
    """The result.json that a device wrote."""
    host: str | None = None
    """Do both through ssh and scp: user@host. The same command continues after a lost connection."""
    host_python: str = "python3"
    """How Python is called on the host."""

    def __post_init__(self) -> None:
        if sum(way is not None for way in (self.bundle, self.import_file, self.host)) > 1:
            raise UserError("--bundle, --import and --host exclude each other; give one of them")

    @property
    def given(self) -> bool:
        """Is it to be measured elsewhere?"""
        return (self.bundle, self.import_file, self.host) != (None, None, None)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DesignFlags:
    """What is designed, and what it may cost; what isn't given has no limit."""

    space: str = "hybrid-tiny"
    """Search space: a name of `nas spaces`, or my_package.spaces:phone."""
    max_macs: float | None = None
    """Multiply-accumulates for one image, such as 2e6."""
    max_params: float | None = None
    """Parameters of the deployed network."""
    max_latency_ms: float | None = None
    """Predicted milliseconds with all blocks in fp32, on the hardware."""
    max_effectiveness: float | None = None
    """Depth over mean width, such as 0.4: the deeper and narrower, the higher, and the harder to train."""
    hardware: str | None = None
    """A name of `nas hardware`, or a profile's file."""
    num_channels: int = 3
    """Channels of the images; a profile is of one number of channels and classes."""
    num_classes: int | None = None
    """Classes of the data. [default: the space's]"""
    output: Path | None = None
    """Write the architecture there as JSON; an existing file is left alone."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SearchFlags:
    """Options of the search."""

    objectives: Names = None
    """Two or more of estimated_error_pct (from misses and cross-entropy), error_pct (misses alone), latency_ms,
    size_bytes, macs, params, entropy (higher is better), effectiveness; with commas. With three or more the default
    searcher takes what it expects to be best and explores less than with two. [default: estimated_error_pct,
    latency_ms, size_bytes]"""
    constraints: Names = None
    """A limit such as 'latency_ms<=2.5'; may be repeated."""
    focus: Names = None
    """A range in which models will be used, such as latency_ms=1..2, where the search spends its evaluations once it
    knows a little; may be repeated, one an objective."""
    num_evaluations: int | None = None
    """Candidates whose accuracy is measured, in all; more than before searches on. [default: 50]"""
    time_limit: str | None = None
    """Begin no evaluation later than this, such as 90s, 30m or 2h; the same command continues the search."""
    patience: int | None = None
    """End the search when the hypervolume (that of the focus if there is one) grew by less than 0.1% in so many
    evaluations."""
    executor: str | None = None
    """local, or ray: workers on this machine or on those of a cluster. [default: local]"""
    workers: int | None = None
    """Candidates that Ray evaluates at once. [default: 2]"""
    ray_address: str | None = None
    """Address of a Ray cluster, or auto. [default: one that is started on this machine]"""
    study: str | None = None
    """Where several machines share the study: postgresql://..., or a file ending in .journal. [default: in --run]"""
    searcher: str | None = None
    """predictor-guided, predictor-guided-recall (more members of the front for a little of its hypervolume), nsga2,
    nsga3, age-moea, aging-evolution, local-search, tpe, gp, random, or my_package.search:MySearcher.
    [default: predictor-guided]"""
    architecture: str | None = None
    """Search only the precisions of smallest, middle, largest or an architecture.json, beside the joint search."""
    num_images: int | None = None
    """Validation images each candidate is judged on. [default: all]"""
    calibration: str | None = None
    """How ranges of static int8 are found: min-max, percentile or entropy. [default: min-max]"""
    seed: int | None = None
    """Decides every random choice of the search. [default: 0]"""
    max_models: int | None = None
    """Models of the front to export and measure. [default: 10]"""
    finetune_epochs: int | None = None
    """Train every model of the front under its own policy for so many epochs at the end. [default: 0]"""


def merge_flags(run: RunOptions, *flags: TrainFlags | TargetFlags | SearchFlags) -> RunConfig:
    """Defaults, then the run's own options, then the file's, then the flags."""
    given: dict[str, Any] = {k: v for k, v in asdict(run).items() if k not in ("run", "config")}
    for group in flags:
        values = asdict(group)
        given["training"] = {name: values.pop(name) for name in TRAINING_FLAGS if values.get(name) is not None}
        given |= {name: value for name, value in values.items() if name not in TRAINING_FLAGS}
    remembered = run.run / "config.yaml"
    return merge_options(
        load_options(remembered) if remembered.exists() else {},
        {} if run.config is None else load_options(run.config),
        given,
    )
