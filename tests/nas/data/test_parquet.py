"""Parquet folders in the Hugging Face layout; bad ones are refused in one line."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nas.data import load_data
from nas.errors import UserError
from tests.nas.data.files import png, write_parquet


def test_parquet_folder_with_shards_and_class_names(tmp_path: Path) -> None:
    for shard in range(2):
        write_parquet(tmp_path / "data" / f"train-0000{shard}-of-00002.parquet", [0, 1] * 20, names=["cat", "dog"])
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [1, 0, 1], names=["cat", "dog"])
    data = load_data(str(tmp_path), image_size=8)
    assert data.class_names == ("cat", "dog")
    assert [len(split) for split in data.splits.values()] == [72, 8, 3]
    assert data.test.labels_B.tolist() == [1, 0, 1]
    assert data.test.images_BCHW[:, 0, 0, 0].tolist() == [0, 1, 2]


def test_split_may_be_the_folder_of_a_parquet_file_and_names_may_be_missing(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train" / "0000.parquet", [0, 1, 2] * 9)
    write_parquet(tmp_path / "validation" / "0000.parquet", [0, 1, 2])
    data = load_data(str(tmp_path), image_size=8)
    assert data.class_names == ("0", "1", "2")
    assert len(data.test) == 3


def test_parquet_with_a_plain_binary_column_and_another_name(tmp_path: Path) -> None:
    table = pa.table({"img": [png(index) for index in range(40)], "label": pa.array([0, 1] * 20, pa.int8())})
    pq.write_table(table, tmp_path / "train.parquet")
    data = load_data(str(tmp_path), image_size=8)
    assert (len(data.train), data.num_channels) == (32, 1)


def test_bad_parquet_files_are_refused(tmp_path: Path) -> None:
    def folder(name: str) -> Path:
        (tmp_path / name).mkdir()
        return tmp_path / name / "train.parquet"

    folder("junk").write_bytes(b"junk")
    whole = write_parquet(folder("cut"), [0, 1] * 20)
    whole.write_bytes(whole.read_bytes()[:-100])
    pq.write_table(pa.table({"label": [0, 1]}), folder("no-image"))
    pq.write_table(pa.table({"image": [png(1)], "target": [0]}), folder("no-label"))
    pq.write_table(pa.table({"image": [png(1)], "label": ["cat"]}), folder("text-label"))
    pq.write_table(pa.table({"image": [[1, 2]], "label": [0]}), folder("array-image"))
    write_parquet(folder("negative"), [0, 1, -1] * 9)
    write_parquet(folder("beyond"), [0, 1, 2] * 9, names=["cat", "dog"])
    write_parquet(folder("null-label"), [0, None] * 9)
    write_parquet(folder("null-image"), [0, 1], images=[png(1), None])
    write_parquet(folder("damaged"), [0, 1], images=[png(1), b"junk"])
    write_parquet(folder("empty"), [], images=[])
    shutil.copy(whole, tmp_path / "other.parquet")
    for name, message in (
        ("junk", r"cannot read the parquet file .*junk/train\.parquet"),
        ("cut", r"cannot read the parquet file .*cut/train\.parquet"),
        ("no-image", "no column image .*its columns are label"),
        ("no-label", "no column label .*its columns are image, target"),
        ("text-label", "column label .* is string"),
        ("array-image", "column image .* is list"),
        ("negative", r"label -1 in row 2 of .*negative/train\.parquet is outside 0\.\.1"),
        ("beyond", r"label 2 in row 2 of .*beyond/train\.parquet is outside 0\.\.1"),
        ("null-label", "column label .* is empty in row 1"),
        ("null-image", r"cannot read the image in row 1 of .*null-image/train\.parquet"),
        ("damaged", r"cannot read the image in row 1 of .*damaged/train\.parquet"),
        ("empty", "the train split of empty is empty"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            load_data(str(tmp_path / name), image_size=8)
        assert "\n" not in str(caught.value)


def test_parquet_without_a_train_split_is_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "images.parquet", [0, 1])
    with pytest.raises(UserError, match=r"no train split \(found: none\)"):
        load_data(str(tmp_path), image_size=8)
