"""The options of a run: their defaults, their rules, and the YAML file that reproduces the run."""

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from hardware_profiles.errors import unknown_name
from nas.errors import UserError

EVALUATED = ("error_pct", "estimated_error_pct")
"""Objectives that only an evaluation of a candidate gives; the others are computed."""

OBJECTIVES = (*EVALUATED, "latency_ms", "size_bytes", "macs", "params", "entropy", "effectiveness")
"""What a search can optimise and constrain."""

DEFAULT_OBJECTIVES = ("estimated_error_pct", "latency_ms", "size_bytes")

EXECUTORS = ("local", "ray")
"""Where candidates are evaluated: in the process of the search, or by workers of a Ray cluster."""

CALIBRATIONS = ("min-max", "percentile", "entropy")
"""Ways to find the ranges of static int8, see `nas.calibration`."""

_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_COUNTS = {"threads": 1, "batch": 1, "epochs": 1, "num_evaluations": 1, "seed": 0, "num_validation": 1, "num_images": 1}
_COUNTS |= {"max_models": 1, "finetune_epochs": 0, "patience": 1, "workers": 1, "samples": 1}
_TEXTS = (
    "space",
    "data",
    "hardware",
    "runtime",
    "device",
    "searcher",
    "architecture",
    "calibration",
    "study",
    "ray_address",
)
_OPTIONAL = (
    "epochs",
    "device",
    "architecture",
    "num_validation",
    "num_images",
    "study",
    "ray_address",
    "patience",
    "samples",
)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides what a run gives. Each field is an option of the command line and a key of the YAML file.

    Raises:
        UserError: on construction, when a value is of the wrong type or out of range.
    """

    space: str = "hybrid-tiny"
    """A search space by name, or `my_package.spaces:phone`."""
    data: str = "fashion-mnist"
    """A data set by name, a folder, or `my_package.data:load`."""
    hardware: str = "local"
    """`local` measures this machine; else a shipped profile by name, or a profile's file."""
    runtime: str = "onnxruntime"
    device: str | None = None
    """What of the target runs the models, as its runtime calls it, such as CUDA; None is the processor."""
    threads: int = 1
    """Threads one run of a model may use on the target."""
    batch: int = 1
    """Images a model sees at once on the target."""
    budget: float = 40.0
    """Seconds that measuring blocks may take."""
    transfer_from: tuple[str, ...] = ()
    """Profiles of other devices, by name or file; this machine then measures whole networks only."""
    samples: int | None = None
    """Whole networks measured for `transfer_from`; None means 20."""
    epochs: int | None = None
    """Passes over the training images; None leaves it to `TrainOptions`."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of `nas.training.TrainOptions`; most of them in the YAML file only."""
    objectives: tuple[str, ...] = DEFAULT_OBJECTIVES
    constraints: tuple[str, ...] = ()
    """Such as `latency_ms<=2.5`."""
    focus: tuple[str, ...] = ()
    """Such as `latency_ms=1..2`: where models will be used, and the search is to look; it forbids nothing."""
    num_evaluations: int = 50
    """Candidates whose accuracy is measured, earlier ones of the same run included."""
    time_limit: float | None = None
    """Seconds after which a search begins no more evaluations; the same command continues it."""
    patience: int | None = None
    """Evaluations without growth of the hypervolume after which a search ends, see `nas.search.stopping`."""
    searcher: str = "predictor-guided"
    executor: str = "local"
    """`local`, or `ray` for workers that may be on several machines."""
    workers: int = 2
    """Candidates that Ray evaluates at once."""
    ray_address: str | None = None
    """Of a Ray cluster; None starts one on this machine."""
    study: str | None = None
    """Where the study is kept instead of in the run's folder: `postgresql://...`, or a file that ends in `.journal`."""
    architecture: str | None = None
    """Search the precisions alone, of `smallest`, `middle`, `largest` or the architecture in a JSON file."""
    seed: int = 0
    """Decides every random choice of the search."""
    num_validation: int | None = None
    """Images kept from training to judge candidates; None leaves it to `load_data`."""
    num_images: int | None = None
    """Validation images each candidate is judged on; None leaves it to `run_search`."""
    calibration: str = "min-max"
    """How ranges of static int8 are found: `min-max`, `percentile` or `entropy`."""
    max_models: int = 10
    """Models of the front that are exported and measured."""
    finetune_epochs: int = 0
    """Passes over the training images with which a search finetunes the front; 0 leaves it as the supernet made it."""

    def __post_init__(self) -> None:
        for name in _TEXTS:
            _check_text(name, getattr(self, name))
        for name, lowest in _COUNTS.items():
            _check_count(name, getattr(self, name), lowest)
        object.__setattr__(self, "budget", parse_seconds(self.budget))
        if self.time_limit is not None:
            object.__setattr__(self, "time_limit", parse_seconds(self.time_limit, name="time_limit"))
        for name in ("objectives", "constraints", "focus", "transfer_from"):
            object.__setattr__(self, name, _as_names(name, getattr(self, name)))
        if self.samples is not None and not self.transfer_from:
            raise UserError(f"samples {self.samples} are of a transferred profile; name its sources with --from")
        if self.transfer_from and self.hardware != "local":
            raise UserError(f"--from transfers profiles to this machine; leave --hardware {self.hardware} out")
        if not isinstance(self.training, Mapping):
            raise UserError(f"training is {self.training!r}; it must map names of training options to values")
        for name, known in (("calibration", CALIBRATIONS), ("executor", EXECUTORS)):
            if getattr(self, name) not in known:
                raise UserError(unknown_name(name, getattr(self, name), known))
        _check_objectives(self.objectives, self.constraints, self.focus)

    def to_yaml(self) -> str:
        """The file that gives this configuration back."""
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)

    def save(self, path: Path) -> None:
        """Write the YAML file, whole or not at all."""
        write_text(path, "# Reproduce this run: nas search --config <this file> --run <folder>\n" + self.to_yaml())


def load_options(path: Path) -> dict[str, Any]:
    """The options in a YAML file, by field name.

    Raises:
        UserError: the file is missing or not YAML, or an option in it is unknown.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"can't read the options in {path}: {error.strerror}; give a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML ({' '.join(str(error).split())}); mend it or remove it") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path} holds {type(values).__name__}; options are lines such as `num_evaluations: 60`")
    return {_known_option(str(name), path): value for name, value in values.items()}


def merge_options(*layers: Mapping[str, Any]) -> RunConfig:
    """The defaults, overridden by each of `layers` in turn.

    A None in a layer overrides nothing, and options of training that a layer doesn't name stay.
    """
    config: dict[str, Any] = {}
    for layer in layers:
        given = {name: value for name, value in layer.items() if value is not None}
        if isinstance(given.get("training"), Mapping):
            given["training"] = {**config.get("training", {}), **given["training"]}
        config |= given
    return replace(RunConfig(), **config)


def parse_seconds(text: str | float, *, name: str = "budget") -> float:
    """Seconds in `60`, `60s`, `5m` or `1h`; UserError when it is none of these or not positive."""
    match = re.fullmatch(r"\s*([\d.]+)\s*(s|m|min|h|)\s*", str(text))
    try:
        seconds = float(match[1]) * _UNITS_S[match[2]] if match else 0.0
    except ValueError:
        seconds = 0.0
    if seconds <= 0 or isinstance(text, bool):
        raise UserError(f"{name} {text!r} must be a positive time such as 60, 90s or 5m")
    return seconds


def write_text(path: Path, text: str) -> None:
    """Replace the file at `path` by `text`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _known_option(name: str, path: Path) -> str:
    known = [f.name for f in fields(RunConfig)]
    option = name.replace("-", "_")
    if option not in known:
        raise UserError(f"{path}: {unknown_name('option', name, known)}")
    return option


def _check_text(name: str, value: Any) -> None:
    if value is None and name in _OPTIONAL:
        return
    if not isinstance(value, str) or not value:
        raise UserError(f"{name} is {value!r}; it must be a name or a path")


def _check_count(name: str, value: Any, lowest: int) -> None:
    if value is None and name in _OPTIONAL:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
        raise UserError(f"{name} is {value!r}; it must be a whole number, {lowest} or more")


def _as_names(name: str, value: Any) -> tuple[str, ...]:
    """A list of texts, or one text with commas."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        raise UserError(f"{name} is {value!r}; it must be a list of texts")
    return tuple(part.strip() for item in items for part in item.split(",") if part.strip())


def _check_objectives(objectives: tuple[str, ...], constraints: tuple[str, ...], focus: tuple[str, ...]) -> None:
    if objectives == DEFAULT_OBJECTIVES and not constraints and not focus:
        return  # the rules below cost imports
    from nas.search.objectives import check_name, parse_constraint, parse_focus

    for name in objectives:
        check_name(name, OBJECTIVES, kind="objective")
    if len(set(objectives)) < 2 or len(set(objectives)) < len(objectives):
        raise UserError(
            f"objectives {', '.join(objectives) or 'none'} must be two or more different ones of "
            + ", ".join(OBJECTIVES)
        )
    for text in constraints:
        name = parse_constraint(text, OBJECTIVES).objective
        if name in EVALUATED and name not in objectives:
            others = [objective for objective in objectives if objective not in EVALUATED]
            raise UserError(
                f"constraint {text!r} limits {name}, which a search learns to keep when it is an objective; "
                f"add --objectives {','.join([name, *others])}"
            )
    for text in focus:
        parse_focus(text, objectives)
