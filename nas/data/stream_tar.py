"""A folder of webdataset shards: tar files in which `key.jpg` is an image and `key.cls` its label.

The split is in the shard's name (`train-000.tar`) or in the name of its folder.
"""

import os
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from nas.data.stream_source import EncodedData, find_split_files
from nas.errors import UserError

IMAGE_SUFFIXES = frozenset({"jpeg", "jpg", "png", "webp"})
"""Members taken for images; others but the labels are ignored."""
LABEL_SUFFIX = "cls"


@dataclass(frozen=True, kw_only=True, eq=False)
class TarImages:
    """Images inside of tar files, found by their offsets."""

    shards: tuple[Path, ...]
    shard_B: np.ndarray
    offset_B: np.ndarray
    size_B: np.ndarray
    keys_B: np.ndarray
    """Encoded names without suffixes, in one array: worker processes then share its memory."""
    labels_B: np.ndarray

    def files(self) -> tuple[Path, ...]:
        return self.shards

    def name(self, index: int) -> str:
        return f"sample {os.fsdecode(self.keys_B[index])} of {self.shards[self.shard_B[index]]}"

    def encoded(self, index: int) -> bytes:
        with self.shards[self.shard_B[index]].open("rb", buffering=0) as file:
            file.seek(int(self.offset_B[index]))
            return file.read(int(self.size_B[index]))

    def order(self, indices_B: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(len(indices_B))


@dataclass(slots=True)
class _Sample:
    offset: int | None = None
    size: int = 0
    label: int | None = None


def open_tar(folder: Path) -> EncodedData:
    """Index all tar files below `folder` whose names carry a split; classes are 0 to the largest training label."""
    splits = {split: _index(shards) for split, shards in find_split_files(folder, ".tar").items()}
    class_names = tuple(str(index) for index in range(int(splits["train"].labels_B.max(initial=0)) + 1))
    return EncodedData(folder=folder, splits=splits, class_names=class_names)


def _index(shards: list[Path]) -> TarImages:
    rows: list[tuple[int, int, int, int]] = []
    keys: list[bytes] = []
    for number, path in enumerate(shards):
        for key, sample in _read_samples(path).items():
            if sample.offset is None or sample.label is None:
                missing = "image" if sample.offset is None else f"label ({key}.{LABEL_SUFFIX})"
                raise UserError(f"sample {key} of {path} has no {missing}; add it or remove the sample")
            rows.append((number, sample.offset, sample.size, sample.label))
            keys.append(os.fsencode(key))
    columns = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    shard_B, offset_B, size_B, labels_B = (np.ascontiguousarray(column) for column in columns)
    return TarImages(
        shards=tuple(shards),
        shard_B=shard_B,
        offset_B=offset_B,
        size_B=size_B,
        keys_B=np.array(keys, dtype=np.bytes_),
        labels_B=labels_B,
    )


def _read_samples(path: Path) -> dict[str, _Sample]:
    """Samples by key, in the order of the shard."""
    samples: dict[str, _Sample] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, suffix = _split_name(member.name)
                if not member.isreg() or suffix not in IMAGE_SUFFIXES | {LABEL_SUFFIX}:
                    continue
                sample = samples.setdefault(key, _Sample())
                if (sample.label if suffix == LABEL_SUFFIX else sample.offset) is not None:
                    raise UserError(f"{member.name} of {path} is its sample's second image or label; remove one")
                if suffix == LABEL_SUFFIX:
                    sample.label = _label(tar, member, path)
                else:
                    sample.offset, sample.size = member.offset_data, member.size
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"cannot read the tar file {path}: {error}; replace it, shards are not compressed") from error
    return samples


def _split_name(name: str) -> tuple[str, str]:
    """Key and suffix as webdataset defines them: the suffix starts at the first point of the last part."""
    path = PurePosixPath(name)
    stem, _, suffix = path.name.partition(".")
    return str(path.with_name(stem)) if stem else name, suffix.lower()


def _label(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> int:
    file = tar.extractfile(member)
    text = b"" if file is None else file.read(32)
    try:
        return int(text)
    except ValueError as error:
        raise UserError(
            f"{member.name} of {path} is {text!r}; store the label as a whole number from 0 on, as text"
        ) from error
