"""A hardware profile: what the blocks of one search space cost on one target, as measured there, and its file."""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hardware_profiles.device import DeviceInfo
from hardware_profiles.errors import ProfileError, unknown_name
from hardware_profiles.rows import BlockRow, Blocks, NetworkRow, check_number

__all__ = ["DEVICES", "BlockRow", "Blocks", "HardwareProfile", "NetworkRow", "find_profile", "list_profiles"]

FORMAT = "hybridnas hardware profile"
FORMAT_VERSION = 3
"""2: with `weight_bits`. 3: rows may be predicted, held-out metrics are grouped, runtimes have devices."""

DEVICES = Path(__file__).parent / "devices"
"""Shipped profiles, `<device>/profile*.json`."""


@dataclass(frozen=True, kw_only=True)
class HardwareProfile:
    """Everything measured for one search space on one target: device, runtime, threads, batch.

    Raises:
        ProfileError: on construction, when a number is negative or not finite, or rows contradict each other.
    """

    name: str
    """What the device is called on the command line."""
    device: DeviceInfo
    runtime: str
    runtime_version: str
    runtime_device: str = ""
    """What of the device runs the models, as the runtime calls it, such as CUDA; empty where there is no choice."""
    num_threads: int
    batch_size: int
    date: str
    """Day or moment of measuring, ISO 8601."""
    space: str
    """Name of the search space whose blocks these are."""
    space_fingerprint: str
    precisions: tuple[str, ...]
    weight_bits: int
    """Bits of int8 weights: the most whose products the runtime adds up exactly here."""
    signed_activations: bool = False
    """Are static int8's activations of both signs symmetric about zero (`Runtime.signed_activations`)?"""
    convolutions: tuple[tuple[str, str], ...] = ()
    """Kinds and precisions of blocks whose point-wise layers are 1x1 convolutions, not products of matrices, here."""
    call_overhead_ms: float
    """Latency of an empty model: part of every network once, and taken out of every row."""
    rows: tuple[BlockRow, ...]
    networks: tuple[NetworkRow, ...] = ()
    held_out: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Metrics of the corrected prediction on held-out networks, by group: fp32, mixed precisions, all."""
    seconds: float = 0.0
    """What measuring took."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of the libraries that made the models."""

    def __post_init__(self) -> None:
        check_number("call_overhead_ms", self.call_overhead_ms)
        check_number("seconds", self.seconds)
        if not all(math.isfinite(value) for group in self.held_out.values() for value in group.values()):
            raise ProfileError(f"held_out metrics {self.held_out} must be finite numbers")
        if self.num_threads < 1 or self.batch_size < 1:
            raise ProfileError(f"num_threads={self.num_threads} and batch_size={self.batch_size} must be at least 1")
        if self.weight_bits not in (7, 8):
            raise ProfileError(f"weight_bits={self.weight_bits} must be 7 or 8; profile the space again")
        if not self.rows:
            raise ProfileError(f"profile {self.name!r} has no rows; profile the space again")
        if len(self.row_index) != len(self.rows):
            raise ProfileError(f"profile {self.name!r} measures a block twice; profile the space again")
        unknown = sorted({row.precision for row in self.rows} - set(self.precisions))
        if unknown:
            raise ProfileError(f"profile {self.name!r} has rows of precisions {unknown} it doesn't declare")

    @cached_property
    def row_index(self) -> Mapping[tuple[str, str], int]:
        """Position in `rows` of each (block key, precision)."""
        return {(row.key, row.precision): index for index, row in enumerate(self.rows)}

    def row(self, key: str, precision: str) -> int:
        """Position in `rows` of a block.

        Raises:
            ProfileError: the block wasn't measured at this precision.
        """
        index = self.row_index.get((key, precision))
        if index is None:
            raise ProfileError(
                f"profile {self.name!r} of space {self.space!r} has no row for block {key!r} at precision "
                f"{precision!r}; profile the space again with `nas profile`"
            )
        return index

    def latency_ms(self, key: str, precision: str) -> float:
        """Latency of a block net of the call, in milliseconds.

        Raises:
            ProfileError: the block wasn't measured at this precision.
        """
        return self.rows[self.row(key, precision)].latency_ms

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of everything in the profile."""
        text = json.dumps(self.to_json(), sort_keys=True, allow_nan=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """As JSON's types; without `signed_activations` and `convolutions` where empty, like older files."""
        content = asdict(self)
        for name in ("signed_activations", "convolutions"):
            if not content[name]:
                del content[name]
        return content

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "HardwareProfile":
        """The profile whose `to_json` is `content`.

        Raises:
            ProfileError: fields are missing, unknown or of the wrong type.
        """
        try:
            values = dict(content)
            values["device"] = DeviceInfo(**{**values["device"], "flags": tuple(values["device"]["flags"])})
            values["precisions"] = tuple(values["precisions"])
            values["convolutions"] = tuple((kind, p) for kind, p in values.get("convolutions", ()))
            values["rows"] = tuple(BlockRow(**row) for row in values["rows"])
            values["networks"] = tuple(
                NetworkRow(**{**row, "blocks": tuple((key, precision) for key, precision in row["blocks"])})
                for row in values["networks"]
            )
            return HardwareProfile(**values)
        except ProfileError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise ProfileError(f"not the content of a hardware profile ({error!r}); profile the space again") from error

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the profile to `path` as JSON, atomically: after any failure the old file, or none, is there.

        Raises:
            ProfileError: a different profile is there and `overwrite` is False, or the disk refuses.
        """
        path = Path(path)
        if path.exists() and not overwrite:
            try:
                if HardwareProfile.load(path).fingerprint == self.fingerprint:
                    return
            except ProfileError as error:
                raise ProfileError(f"{error}; it isn't overwritten unless you say so") from error
            raise ProfileError(f"{str(path)!r} holds another profile; choose another file, or overwrite it on purpose")
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with unfinished.open("w", encoding="utf-8") as file:
                file.write(_format_text(self))
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except OSError as error:
            with suppress(OSError):  # as unwritable as the file itself; the first error is the one to tell
                unfinished.unlink(missing_ok=True)
            raise ProfileError(
                f"can't write {str(path)!r}: {error.strerror}; choose another place or free some"
            ) from error

    @staticmethod
    def load(path: str | Path) -> "HardwareProfile":
        """Read the profile at `path`.

        Raises:
            ProfileError: it is missing, truncated, altered since it was written, or of another format version.
        """
        path = Path(path)
        try:
            document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        except FileNotFoundError as error:
            raise ProfileError(f"no hardware profile {str(path)!r}; measure one with `nas profile`") from error
        except OSError as error:
            raise ProfileError(f"can't read hardware profile {str(path)!r}: {error.strerror}") from error
        except ValueError as error:  # covers broken JSON and broken UTF-8
            raise ProfileError(
                f"hardware profile {str(path)!r} is truncated or not JSON; profile the space again"
            ) from error
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ProfileError(f"{str(path)!r} isn't a hardware profile; give a file written by `nas profile`")
        if document.get("version") != FORMAT_VERSION:
            raise ProfileError(
                f"hardware profile {str(path)!r} has format version {document.get('version')!r}, "
                f"this release reads {FORMAT_VERSION}; profile the space again"
            )
        content = document.get("profile")
        try:
            profile = HardwareProfile.from_json(content if isinstance(content, dict) else {})
        except ProfileError as error:
            raise ProfileError(f"hardware profile {str(path)!r}: {error}") from error
        if document.get("checksum") != profile.fingerprint:
            raise ProfileError(
                f"hardware profile {str(path)!r} was altered since it was written; profile the space again"
            )
        return profile


def list_profiles(folder: str | Path = DEVICES) -> list[HardwareProfile]:
    """The profiles under `folder` (by default those shipped), in order of their paths."""
    return [HardwareProfile.load(path) for path in sorted(Path(folder).glob("*/profile*.json"))]


def find_profile(
    name_or_path: str | Path, *, space: str | None = None, folder: str | Path = DEVICES
) -> HardwareProfile:
    """The profile in the file `name_or_path`, or the shipped one of that device, for `space` where it is given.

    Raises:
        ProfileError: there is none, or there are several.
    """
    name = str(name_or_path)
    if name.endswith(".json") or os.sep in name:
        found = [HardwareProfile.load(name)]
    else:
        shipped = list_profiles(folder)
        found = [profile for profile in shipped if profile.name == name]
        if not found:
            message = unknown_name("hardware", name, {profile.name for profile in shipped})
            raise ProfileError(f"{message}; or say local, which measures this machine, or give the path of a profile")
    fitting = [profile for profile in found if space in (None, profile.space)]
    if not fitting:
        spaces = ", ".join(sorted({profile.space for profile in found}))
        raise ProfileError(f"hardware {name!r} has no profile of space {space!r}, only of {spaces}; run `nas profile`")
    if len(fitting) > 1:
        raise ProfileError(f"hardware {name!r} has several profiles ({_describe(fitting)}); give the path of one")
    return fitting[0]


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} isn't JSON")


def _describe(profiles: Iterable[HardwareProfile]) -> str:
    return "; ".join(f"{p.space}, {p.runtime}, {p.num_threads} threads, batch {p.batch_size}" for p in profiles)


def _format_text(profile: HardwareProfile) -> str:
    """JSON with one line a row, so that two profiles can be compared line by line."""
    fields = [f" {json.dumps(key)}: {_format_value(value)}" for key, value in profile.to_json().items()]
    head = {"format": FORMAT, "version": FORMAT_VERSION, "checksum": profile.fingerprint}
    head_text = "\n".join(f"{json.dumps(key)}: {json.dumps(value)}," for key, value in head.items())
    return f'{{\n{head_text}\n"profile": {{\n' + ",\n".join(fields) + "\n}}\n"


def _format_value(value: Any) -> str:
    if isinstance(value, list | tuple) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(f"  {json.dumps(item, allow_nan=False)}" for item in value) + "\n ]"
    return json.dumps(value, allow_nan=False)
