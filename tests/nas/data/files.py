"""Small images in the layouts data sets come in."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def png(value: int | tuple[int, int, int], size: int = 8) -> bytes:
    """A picture of one colour, or of one grey level."""
    file = io.BytesIO()
    mode = "L" if isinstance(value, int) else "RGB"
    Image.new(mode, (size, size), value).save(file, "PNG")
    return file.getvalue()


def write_classes(folder: Path, counts: dict[str, int], *, grey: bool = True) -> Path:
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            (folder / name / f"{index}.png").write_bytes(png(index if grey else (index, 0, 0)))
    return folder


def write_parquet(
    path: Path, labels: list[int | None], *, names: list[str] | None = None, images: list[bytes | None] | None = None
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = images or [png((index % 256, 0, 0)) for index in range(len(labels))]
    table = pa.table(
        {"image": [{"bytes": data, "path": None} for data in rows], "label": pa.array(labels, pa.int64())},
        schema=pa.schema(
            [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())]
        ),
    )
    if names:
        info = {"info": {"features": {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(table, path, row_group_size=16)
    return path
