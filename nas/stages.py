"""The stages of a run and what each of them used, so that nothing made from other inputs is taken for current."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from nas.config import write_text
from nas.errors import UserError

STAGES = ("profile", "train", "search", "verify", "finetune", "fidelity", "sensitivity")
"""In the order they run. A search of one architecture's precisions has stages of its own, such as `search-largest`."""

OUTPUTS = {
    "profile": ("profile.json",),
    "train": ("supernet.safetensors", "supernet.json", "checkpoint.safetensors", "checkpoint.json"),
    "search": ("study.db",),
    "verify": ("front", "verified.json", "exported.json", "pareto.csv", "report.html"),
    "finetune": ("finetuned", "finetuned.json"),
    "fidelity": ("fidelity.csv", "fidelity.json", "fidelity"),
    "sensitivity": ("sensitivity.csv",),
}
"""What a stage leaves in the run folder."""


def outputs(stage: str) -> tuple[str, ...]:
    """Files and folders of a stage: those of `search-largest` are named like `study-largest.db`."""
    kind, dash, rest = stage.partition("-")
    paths = [Path(name) for name in OUTPUTS[kind]]
    return tuple(f"{path.stem}{dash}{rest}{path.suffix}" for path in paths)


def made_from(stage: str, stages: Iterable[str]) -> list[str]:
    """Those of `stages` that are made from the output of `stage`."""
    kind, dash, rest = stage.partition("-")
    studies = ("search", "verify", "finetune", "sensitivity")
    made = {"profile": studies, "train": (*studies, "fidelity")}
    if kind in made:
        return [name for name in stages if name.partition("-")[0] in made[kind]]
    later = {"search": ("verify", "finetune"), "verify": ("finetune",)}.get(kind, ())
    names = [f"{name}{dash}{rest}" for name in later]
    if stage == "search":
        names.append("sensitivity")  # it may be of an architecture of the front
    return [name for name in stages if name in names]


class Stages:
    """The stamps in `stages.json`: stage -> inputs, whether it is done, and when and how long it ran.

    A stamp is written when its stage starts, so that an interrupted stage is resumed with equal inputs only.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / "stages.json"
        self._stamps: dict[str, dict[str, Any]] = _read(self._path)

    def check(self, stage: str, inputs: Mapping[str, str]) -> None:
        """Raise `UserError`, naming what changed, when the stage was made or begun with other inputs.

        Outputs without a stamp are refused too: nobody knows what they were made from.
        """
        stamp = self._stamps.get(stage)
        if stamp is None:
            found = [name for name in outputs(stage) if (self.folder / name).exists()]
            if found:
                raise UserError(
                    f"{self.folder / found[0]} has no stamp in {self._path.name}, so what it was made from is unknown; "
                    f"use another --run folder, or --redo {stage}"
                )
            return
        recorded = stamp["inputs"]
        changes = [
            f"{name} was {recorded.get(name, 'absent')}, now {inputs.get(name, 'absent')}"
            for name in dict.fromkeys([*recorded, *inputs])
            if recorded.get(name) != inputs.get(name)
        ]
        if changes:
            raise UserError(
                f"{self.folder}: changed since stage '{stage}': {'; '.join(changes)}; use another --run folder, or "
                f"--redo {stage}"
            )

    def equal(self, stage: str, inputs: Mapping[str, str]) -> bool:
        """Is there a stamp of the stage with exactly these inputs?"""
        return stage in self._stamps and self._stamps[stage]["inputs"] == dict(inputs)

    def is_done(self, stage: str, *, extent: int = 0) -> bool:
        """Was the stage finished, and went as far as `extent` (epochs, evaluations)?"""
        stamp = self._stamps.get(stage)
        if stamp is None or not stamp["done"] or stamp["extent"] < extent:
            return False
        return any((self.folder / name).exists() for name in outputs(stage))

    def seconds(self, stage: str) -> float | None:
        """What the stage took when it last ran to its end."""
        stamp = self._stamps.get(stage)
        return stamp["seconds"] if stamp is not None and stamp["done"] else None

    @contextmanager
    def alone(self, stage: str) -> Iterator[None]:
        """Keep other processes from the stage; one that was killed keeps nobody. A search is shared.

        Raises:
            UserError: another process is at it.
        """
        if stage.partition("-")[0] == "search":
            yield
            return
        try:
            held = FileLock(self.folder / f".{stage}.lock").acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"another process is at stage '{stage}' of {self.folder}; wait for it, or use another --run folder"
            ) from None
        with held:
            yield

    def start(self, stage: str, inputs: Mapping[str, str], *, extent: int = 0) -> None:
        """Claim the stage for `inputs`."""
        stamp = {"inputs": dict(inputs), "extent": extent, "done": False, "date": _now(), "seconds": None}
        self._stamps[stage] = stamp
        self._write()

    def finish(self, stage: str, *, seconds: float) -> None:
        """Record that the stage started last is complete."""
        self._stamps[stage] |= {"done": True, "date": _now(), "seconds": round(seconds, 1)}
        self._write()

    def shorten(self, stage: str, *, extent: int) -> None:
        """Record that a complete stage ended before what was asked for, so that asking again continues it."""
        self._stamps[stage] |= {"extent": extent}
        self._write()

    def redo(self, stage: str) -> Path | None:
        """Move the outputs of a stage and of those made from it aside; the folder they are in now, None without any."""
        replaced = self.folder / "replaced"
        aside = replaced / str(1 + len(list(replaced.glob("*"))))
        for name in [stage, *made_from(stage, list(self._stamps))]:
            for output in outputs(name):
                if (self.folder / output).exists():
                    aside.mkdir(parents=True, exist_ok=True)
                    (self.folder / output).replace(aside / output)
            self._stamps.pop(name, None)
        if self._path.exists():
            self._write()
        return aside if aside.exists() else None

    def _write(self) -> None:
        write_text(self._path, json.dumps(self._stamps, indent=1) + "\n")


_STAMP = ("inputs", "extent", "done", "date", "seconds")


def hash_file(path: Path) -> str:
    """16 hex digits of the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def hash_rows(frame: pd.DataFrame) -> str:
    """Number of rows of a study, and 16 hex digits over what was asked and whether it failed."""
    rows = frame[[name for name in frame if name in ("index", "state") or "." in str(name)]]
    return f"{len(frame)} {hash_text(rows.to_csv(index=False))}"


def hash_text(text: str) -> str:
    """16 hex digits of the SHA-256 of a text."""
    return hash_bytes(text.encode())


def hash_bytes(content: bytes | memoryview) -> str:
    """16 hex digits of the SHA-256 of bytes, such as an array's."""
    return hashlib.sha256(content).hexdigest()[:16]


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        stamps = json.loads(path.read_text(encoding="utf-8"))
        return {stage: {name: stamp[name] for name in _STAMP} for stage, stamp in stamps.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, TypeError, KeyError):
        raise UserError(
            f"{path} is damaged; use another --run folder, or remove the file and --redo each stage"
        ) from None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
