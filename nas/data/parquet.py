"""A folder of parquet files in the Hugging Face image layout.

Columns: `image` (or `img`), a struct of `bytes` and `path` or plain bytes, and the integer `label`. The split is in the
file's name (`train-00000-of-00002.parquet`) or in the name of its folder.
"""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nas.data.cache import cache_key, read_cache, write_cache
from nas.data.decode import Arrays, allocate, counted, decode_images
from nas.data.splits import DecodedData, check_has_train, split_of_name
from nas.errors import UserError
from nas.progress import Progress

IMAGE_COLUMNS = ("image", "img", "image.bytes")
LABEL_COLUMNS = ("label", "labels", "fine_label")


def load_parquet(
    folder: Path, *, image_size: int, num_channels: int | None, cache_dir: Path, progress: Progress | None = None
) -> DecodedData:
    """Load the images and labels of all parquet files below `folder` whose names carry a split."""
    groups = _find_files(folder)
    schema = _open(groups["train"][0]).schema_arrow
    files = [path for group in groups.values() for path in group]
    options = {"splits": sorted(groups), "image_size": image_size, "num_channels": num_channels}
    key = cache_key(files, folder=folder, options=options)
    splits = read_cache(cache_dir, key)
    if splits is None:
        splits = _decode(groups, image_size=image_size, num_channels=num_channels, progress=progress)
        write_cache(cache_dir, key, splits)
    class_names = _class_names(schema)
    if class_names is None:
        labels_B = splits["train"][1]
        class_names = tuple(str(index) for index in range(int(labels_B.max(initial=0)) + 1))
    return DecodedData(name=folder.resolve().name, splits=splits, class_names=class_names, content_size=image_size)


def _find_files(folder: Path) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.parquet")):
        parts = [path.stem, *reversed(path.relative_to(folder).parent.parts)]
        words = (word for part in parts for word in re.split(r"[^A-Za-z]+", part))
        split = next((split for split in map(split_of_name, words) if split), None)
        if split:
            groups.setdefault(split, []).append(path)
    check_has_train(groups, folder)
    return {split: groups[split] for split in ("train", "validation", "test") if split in groups}


def _decode(
    groups: dict[str, list[Path]], *, image_size: int, num_channels: int | None, progress: Progress | None
) -> dict[str, Arrays]:
    counts = {path: _open(path).metadata.num_rows for group in groups.values() for path in group}
    images_BCHW = allocate(sum(counts.values()), num_channels=num_channels, image_size=image_size)
    report = counted(progress, len(images_BCHW), "images decoded")
    splits, all_grey, start = {}, True, 0
    for split, paths in groups.items():
        first, labels = start, []
        for path in paths:
            file = _open(path)
            columns = _columns(file.schema_arrow, path)
            in_file = 0
            for group_index in range(file.num_row_groups):
                encoded, labels_B = _read_row_group(file, group_index, columns, path)
                all_grey &= decode_images(
                    encoded,
                    name_of=lambda index, path=path, offset=in_file: f"in row {offset + index} of {path}",  # type: ignore[misc]
                    out_BCHW=images_BCHW[start : start + len(encoded)],
                    content_size=image_size,
                    progress=report,
                )
                labels.append(labels_B)
                start += len(encoded)
                in_file += len(encoded)
        splits[split] = (images_BCHW[first:start], np.concatenate([np.empty(0, dtype=np.int64), *labels]))
    if all_grey and num_channels is None:
        return {split: (np.ascontiguousarray(images[:, :1]), labels) for split, (images, labels) in splits.items()}
    return splits


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


def _read_row_group(
    file: pq.ParquetFile, index: int, columns: tuple[str, str], path: Path
) -> tuple[list[bytes], np.ndarray]:
    try:
        table = file.read_row_group(index, columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    images, labels = (table.column(name) for name in columns)
    if pa.types.is_struct(images.type):
        images = pc.struct_field(images, "bytes")
    for name, column in zip(columns, (images, labels), strict=True):
        if column.null_count:
            row = pc.index(pc.is_null(column), True).as_py()
            raise UserError(
                f"column {name} of {path} is empty in row {row} of row group {index}; "
                "store every image's bytes and label"
            )
    return images.to_pylist(), labels.to_numpy().astype(np.int64)


def _class_names(schema: pa.Schema) -> tuple[str, ...] | None:
    """Names in the `ClassLabel` feature the Hugging Face library writes; None when there are none."""
    try:
        info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = info["info"]["features"]
        label = next(name for name in LABEL_COLUMNS if name in schema.names)
        return tuple(str(name) for name in features[label]["names"])
    except (json.JSONDecodeError, KeyError, TypeError, StopIteration):
        return None  # files written by other tools have no or other metadata
