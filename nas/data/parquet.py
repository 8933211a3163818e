"""A folder of parquet files in the Hugging Face image layout.

Columns: `image` (or `img`), a struct of `bytes` and `path` or plain bytes, and the integer `label`. The split is in the
file's name (`train-00000-of-00002.parquet`) or in the name of its folder.
"""

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nas.data.stream_source import EncodedData, find_split_files
from nas.errors import UserError

IMAGE_COLUMNS = ("image", "img", "image.bytes")
LABEL_COLUMNS = ("label", "labels", "fine_label")
WINDOW_BYTES = 256 * 2**20
"""Row groups that are shuffled together, and kept by each process that reads, take about this much memory."""


class ParquetImages:
    """The images of some parquet files. They are read in whole row groups, so the last few groups are kept."""

    def __init__(self, files: list[Path]):
        opened = [_open(path) for path in files]
        self._files = files
        self._columns = [_columns(file.schema_arrow, path) for file, path in zip(opened, files, strict=True)]
        self._groups = [(index, group) for index, file in enumerate(opened) for group in range(file.num_row_groups)]
        metadata = [opened[index].metadata.row_group(group) for index, group in self._groups]
        self._starts = np.cumsum([0, *(group.num_rows for group in metadata)])
        largest = max((group.total_byte_size for group in metadata), default=1)
        self._num_kept = max(2, WINDOW_BYTES // max(largest, 1))
        self._recent: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        parts = [_read_labels(*each) for each in zip(opened, self._columns, files, strict=True)]
        self.labels_B = np.concatenate([np.empty(0, dtype=np.int64), *parts])

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_recent": OrderedDict()}

    def files(self) -> list[Path]:
        return self._files

    def name(self, index: int) -> str:
        group = self._group_of(index)
        file, _ = self._groups[group]
        first_group = next(number for number, (other, _) in enumerate(self._groups) if other == file)
        return f"row {index - self._starts[first_group]} of {self._files[file]}"

    def encoded(self, index: int) -> bytes:
        group = self._group_of(index)
        data = self._images(group)[index - int(self._starts[group])].as_py()
        if data is None:
            raise ValueError("the column is empty there")
        return data

    def order(self, indices_B: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Row groups in random order; within each window of as many groups as are kept, images in random order."""
        rank = rng.permutation(len(self._groups))
        window_B = rank[np.searchsorted(self._starts, indices_B, side="right") - 1] // self._num_kept
        return np.lexsort((rng.random(len(indices_B)), window_B))

    def _group_of(self, index: int) -> int:
        return int(np.searchsorted(self._starts, index, side="right")) - 1

    def _images(self, group: int) -> pa.ChunkedArray:
        if group in self._recent:
            self._recent.move_to_end(group)
        else:
            file, group_in_file = self._groups[group]
            self._recent[group] = _read_images(self._files[file], group_in_file, self._columns[file][0])
            if len(self._recent) > self._num_kept:
                self._recent.popitem(last=False)
        return self._recent[group]


def open_parquet(folder: Path) -> EncodedData:
    """Find all parquet files below `folder` whose names carry a split, and read their labels."""
    groups = find_split_files(folder, ".parquet")
    splits = {split: ParquetImages(files) for split, files in groups.items()}
    class_names = _class_names(_open(groups["train"][0]).schema_arrow)
    if class_names is None:
        class_names = tuple(str(index) for index in range(int(splits["train"].labels_B.max(initial=0)) + 1))
    return EncodedData(folder=folder, splits=splits, class_names=class_names)


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"cannot read the parquet file {path}: {' '.join(str(error).split())}; replace or remove it")


def _columns(schema: pa.Schema, path: Path) -> tuple[str, str]:
    """Names of the image and the label column."""
    image = next((name for name in IMAGE_COLUMNS if name in schema.names), None)
    label = next((name for name in LABEL_COLUMNS if name in schema.names), None)
    if image is None or label is None:
        missing = "image (a struct with bytes)" if image is None else "label (integers)"
        raise UserError(f"{path} has no column {missing}; its columns are {', '.join(schema.names)}: rename one")
    image_type, label_type = schema.field(image).type, schema.field(label).type
    if pa.types.is_struct(image_type) and image_type.get_field_index("bytes") >= 0:
        image_type = image_type.field("bytes").type
    if not (pa.types.is_binary(image_type) or pa.types.is_large_binary(image_type)):
        raise UserError(f"column {image} of {path} is {image_type}; store encoded images (PNG or JPEG bytes)")
    if not pa.types.is_integer(label_type):
        raise UserError(f"column {label} of {path} is {label_type}; store labels as integers from 0 on")
    return image, label


def _read_labels(file: pq.ParquetFile, columns: tuple[str, str], path: Path) -> np.ndarray:
    _, name = columns
    try:
        column = file.read(columns=[name], use_threads=False).column(name)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py()
        raise UserError(f"column {name} of {path} is empty in row {row}; store every image's label")
    return column.to_numpy().astype(np.int64)


def _read_images(path: Path, group: int, column: str) -> pa.ChunkedArray:
    try:  # without threads, which a forked process doesn't have
        images = _open(path).read_row_group(group, columns=[column], use_threads=False).column(column)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    return pc.struct_field(images, "bytes") if pa.types.is_struct(images.type) else images


def _class_names(schema: pa.Schema) -> tuple[str, ...] | None:
    """Names in the `ClassLabel` feature the Hugging Face library writes; None when there are none."""
    try:
        info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = info["info"]["features"]
        label = next(name for name in LABEL_COLUMNS if name in schema.names)
        return tuple(str(name) for name in features[label]["names"])
    except (json.JSONDecodeError, KeyError, TypeError, StopIteration):
        return None  # files written by other tools have no or other metadata
