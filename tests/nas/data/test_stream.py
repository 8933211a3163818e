"""Every layout on disk gives the same images whether they are streamed or in memory."""

import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from nas.data import ImageData, Split, StreamedSplit, load_data
from nas.data.dataset import evenly_spaced
from nas.data.parquet import ParquetImages
from nas.errors import UserError
from tests.nas.data.files import png, write_parquet

NUM_TRAIN, NUM_TEST = 60, 6


def noise(index: int) -> bytes:
    """A colour picture of its own, not square."""
    pixels_HWC = np.random.default_rng(index).integers(0, 256, (11, 14, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels_HWC).save(file, "PNG")
    return file.getvalue()


Samples = list[tuple[bytes, int]]


def samples(count: int, *, first: int = 0) -> Samples:
    """Sorted by class, as class folders are."""
    return [(noise(first + index), 3 * index // count) for index in range(count)]


def write_folders(folder: Path, split: str, rows: Samples) -> None:
    for index, (data, label) in enumerate(rows):
        path = folder / split / str(label) / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def write_rows(folder: Path, split: str, rows: Samples) -> None:
    half = len(rows) // 2
    for number, part in enumerate((rows[:half], rows[half:])):
        write_parquet(
            folder / f"{split}-0000{number}-of-00002.parquet",
            [label for _, label in part],
            images=[data for data, _ in part],
        )


def write_shards(folder: Path, split: str, rows: Samples) -> None:
    half = len(rows) // 2
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate((rows[:half], rows[half:])):
        members = {}
        for index, (data, label) in enumerate(part):
            members |= {f"x/{index:03}.cls": str(label).encode(), f"x/{index:03}.png": data}
        write_tar(folder / f"{split}-00{number}.tar", members | {"x/000.json": b"{}"})


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


Write = Callable[[Path, str, Samples], None]
LAYOUTS = pytest.mark.parametrize("write", [write_folders, write_rows, write_shards])


def load(folder: Path, *, stream: bool | None, **options: int) -> ImageData:
    return load_data(str(folder), image_size=8, stream=stream, **options)


@LAYOUTS
def test_streamed_images_equal_those_in_memory(tmp_path: Path, write: Write) -> None:
    write(tmp_path, "train", samples(NUM_TRAIN))
    write(tmp_path, "test", samples(NUM_TEST, first=500))
    streamed, held = (load(tmp_path, stream=stream, num_validation=9) for stream in (True, False))
    assert isinstance(streamed.train, StreamedSplit)
    assert isinstance(held.train, Split)
    indices = np.random.default_rng(0).permutation(len(held.train))
    ours, theirs = streamed.train.read(indices), held.train.read(indices)
    assert torch.equal(ours.images_BCHW, theirs.images_BCHW)
    assert torch.equal(ours.labels_B, theirs.labels_B)
    assert torch.equal(streamed.train.labels_B, held.train.labels_B)
    assert ours.damaged == ()
    for split in ("validation", "test"):
        assert torch.equal(streamed.splits[split].images_BCHW, held.splits[split].images_BCHW)
        assert torch.equal(streamed.splits[split].labels_B, held.splits[split].labels_B)
    assert streamed.mean == pytest.approx(held.mean)
    assert streamed.std == pytest.approx(held.std)
    assert torch.equal(streamed.calibration_images(20), held.calibration_images(20))


@LAYOUTS
def test_one_order_holds_every_index_once_and_comes_again_with_its_seed(tmp_path: Path, write: Write) -> None:
    write(tmp_path, "train", samples(NUM_TRAIN))
    train = load(tmp_path, stream=True).train
    one, same, other = (train.order(np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert sorted(one.tolist()) == list(range(len(train)))
    assert one.tolist() == same.tolist() != other.tolist()


@LAYOUTS
def test_worker_processes_read_what_one_process_reads(tmp_path: Path, write: Write) -> None:
    write(tmp_path, "train", samples(NUM_TRAIN))
    train = load(tmp_path, stream=True).train
    batches = np.arange(len(train)).reshape(7, 7)
    train.read(batches[0])
    loader = DataLoader(batches, batch_size=None, num_workers=2, collate_fn=train.read)
    assert torch.equal(
        torch.cat([images.images_BCHW for images in loader]), train.read(np.arange(len(train))).images_BCHW
    )
    again = pickle.loads(pickle.dumps(train))  # as workers that are not forked get it
    assert torch.equal(again.read(batches[1]).images_BCHW, train.read(batches[1]).images_BCHW)


@LAYOUTS
def test_next_readable_image_with_its_label_stands_in_for_damaged_ones(tmp_path: Path, write: Write) -> None:
    rows = samples(NUM_TRAIN)
    for index in (18, 19):
        rows[index] = (b"junk", rows[index][1])
    write(tmp_path, "train", rows)
    write(tmp_path, "val", samples(NUM_TEST, first=500))
    write(tmp_path, "test", samples(NUM_TEST, first=700))
    train = load(tmp_path, stream=True).train
    images = train.read(np.array([17, 18, 18, 20]))
    assert torch.equal(images.images_BCHW[1:], train.read(np.array([20, 20, 20])).images_BCHW)
    assert images.labels_B.tolist() == [0, 1, 1, 1]
    assert len(images.damaged) == 2
    assert "18" in images.damaged[0]
    assert "19" in images.damaged[1]


@LAYOUTS
def test_ten_damaged_images_in_a_row_are_the_users_error(tmp_path: Path, write: Write) -> None:
    rows = samples(NUM_TRAIN)
    rows[40:50] = [(b"junk", label) for _, label in rows[40:50]]
    write(tmp_path, "train", rows)
    write(tmp_path, "val", samples(NUM_TEST, first=500))
    write(tmp_path, "test", samples(NUM_TEST, first=700))
    train = load(tmp_path, stream=True).train
    assert len(train.read(np.array([41])).damaged) == 9
    with pytest.raises(UserError, match="10 images in a row cannot be read, from .* to .*; replace or remove them"):
        train.read(np.array([40]))


@LAYOUTS
def test_a_damaged_validation_image_is_refused(tmp_path: Path, write: Write) -> None:
    write(tmp_path, "train", samples(NUM_TRAIN))
    write(tmp_path, "test", [*samples(NUM_TEST, first=500), (b"junk", 0), *samples(1)])
    with pytest.raises(UserError, match=r"cannot read the image in .*test"):
        load(tmp_path, stream=True)


@LAYOUTS
def test_fingerprint_tells_files_and_splits_apart(tmp_path: Path, write: Write) -> None:
    write(tmp_path / "one", "train", samples(NUM_TRAIN))
    write(tmp_path / "two", "train", [*samples(NUM_TRAIN - 1), (noise(9) + bytes(20_000), 2)])
    prints = [load(tmp_path / name, stream=True, seed=seed).fingerprint for name in ("one", "two") for seed in (0, 1)]
    assert len(set(prints)) == 4
    assert load(tmp_path / "one", stream=True).fingerprint == prints[0]


@LAYOUTS
def test_grey_images_have_one_channel_unless_asked_otherwise(tmp_path: Path, write: Write) -> None:
    write(tmp_path, "train", [(png(index), 3 * index // NUM_TRAIN) for index in range(NUM_TRAIN)])
    assert load(tmp_path, stream=True).num_channels == load(tmp_path, stream=False).num_channels == 1
    assert load(tmp_path, stream=True, num_channels=3).train.shape == (3, 8, 8)


def test_data_are_streamed_when_they_do_not_fit_into_half_of_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folders(tmp_path, "train", samples(NUM_TRAIN))
    needed = NUM_TRAIN * 3 * 8 * 8
    for available, kind in ((2 * needed, Split), (2 * needed - 1, StreamedSplit)):
        memory = psutil.virtual_memory()._replace(available=available)
        monkeypatch.setattr("nas.data.stream.psutil.virtual_memory", lambda memory=memory: memory)
        assert isinstance(load(tmp_path, stream=None).train, kind)


def test_only_folders_can_be_streamed() -> None:
    with pytest.raises(UserError, match="tests.tiny_data:load cannot be streamed, only a folder can"):
        load_data("tests.tiny_data:load", image_size=8, stream=True)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(2, 5), st.integers(0, 99))
def test_windows_of_row_groups_are_read_one_after_another(
    tmp_path_factory: pytest.TempPathFactory, num_groups: int, num_kept: int, seed: int
) -> None:
    path = tmp_path_factory.mktemp("rows") / "train.parquet"
    write_parquet(path, [0, 1] * 8 * num_groups)
    with pytest.MonkeyPatch.context() as patch:
        group_bytes = max(_group_bytes(path))
        patch.setattr("nas.data.parquet.WINDOW_BYTES", num_kept * group_bytes)
        images = ParquetImages([path])
    chosen = np.flatnonzero(np.arange(16 * num_groups) % 3)
    order = images.order(chosen, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(len(chosen)))
    groups, seen = chosen[order] // 16, []
    for group in groups.tolist():
        seen += [group] if group not in seen else []
    window_of = {group: rank // num_kept for rank, group in enumerate(seen)}
    windows = [window_of[group] for group in groups.tolist()]
    assert windows == sorted(windows)


def _group_bytes(path: Path) -> list[int]:
    metadata = pq.ParquetFile(path).metadata
    return [metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups)]


def test_an_epoch_reads_each_row_group_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train.parquet"
    write_parquet(path, [0, 1] * 60)
    monkeypatch.setattr("nas.data.parquet.WINDOW_BYTES", 1)
    images, read = ParquetImages([path]), []
    monkeypatch.setattr("nas.data.parquet._open", lambda path, real=pq.ParquetFile: read.append(path) or real(path))
    order = images.order(np.arange(120), np.random.default_rng(0))
    for index in order.tolist():
        assert images.encoded(index) == png((index, 0, 0))
    assert len(read) == 8


def test_bad_tar_shards_are_refused(tmp_path: Path) -> None:
    good = {"a.cls": b"0", "a.png": png(1), "b.cls": b" 1\n", "b.png": png(2)}
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "train.tar").write_bytes(b"junk" * 500)
    write_tar(tmp_path / "packed" / "train.tar", good, mode="w:gz")
    write_tar(tmp_path / "no-label" / "train.tar", good | {"c.png": png(1)})
    write_tar(tmp_path / "no-image" / "train.tar", good | {"c.cls": b"1"})
    write_tar(tmp_path / "text" / "train.tar", good | {"c.cls": b"cat", "c.png": png(1)})
    write_tar(tmp_path / "negative" / "train.tar", good | {"c.cls": b"-1", "c.png": png(1)})
    write_tar(tmp_path / "twice" / "train.tar", good | {"a.jpg": png(1)})
    write_tar(tmp_path / "no-train" / "shard.tar", good)
    write_tar(tmp_path / "empty" / "train.tar", {})
    write_tar(tmp_path / "beyond" / "train.tar", good)
    write_tar(tmp_path / "beyond" / "test.tar", {"z.cls": b"7", "z.png": png(1)})
    for name, message in (
        ("junk", r"cannot read the tar file .*junk/train\.tar"),
        ("packed", r"cannot read the tar file .*packed/train\.tar: .*not compressed"),
        ("no-label", r"sample c of .*train\.tar has no label \(c\.cls\)"),
        ("no-image", r"sample c of .*train\.tar has no image"),
        ("text", r"c\.cls of .*train\.tar is b'cat'; store the label as a whole number"),
        ("negative", r"label -1 in sample c of .*train\.tar is outside 0\.\.1"),
        ("twice", r"a\.jpg of .*train\.tar is its sample's second image"),
        ("no-train", r"no train split \(found: none\)"),
        ("empty", "the train split of empty is empty"),
        ("beyond", r"label 7 in sample z of .*test\.tar is outside 0\.\.1, its 2 classes"),
    ):
        for stream in (True, False):
            with pytest.raises(UserError, match=message) as caught:
                load(tmp_path / name, stream=stream)
            assert "\n" not in str(caught.value)


def test_tar_files_beside_images_are_not_the_data(tmp_path: Path) -> None:
    write_folders(tmp_path, "train", samples(NUM_TRAIN))
    write_tar(tmp_path / "train.tar", {"a.txt": b"the archive it was unpacked from"})
    assert len(load(tmp_path, stream=True).class_names) == 3


@given(st.integers(1, 500), st.integers(1, 500))
def test_evenly_spaced_indices_lie_in_equal_stretches(total: int, count: int) -> None:
    indices = evenly_spaced(total, count)
    count = min(total, count)
    assert len(set(indices.tolist())) == count
    edges = np.arange(count + 1) * total // count
    assert np.all((edges[:-1] <= indices) & (indices < edges[1:]))


def test_calibration_images_are_of_all_classes_whether_sorted_or_in_turn() -> None:
    for labels_B in (np.repeat(np.arange(10), 100), np.arange(1000) % 10):
        images_BCHW = (labels_B[:, None, None, None] * np.ones((1, 1, 8, 8))).astype(np.uint8)
        split = Split(images_BCHW=torch.from_numpy(images_BCHW), labels_B=torch.from_numpy(labels_B))
        names = tuple("abcdefghij")
        data = ImageData(name="d", train=split, validation=split, test=split, class_names=names, content_size=8)
        counts = torch.bincount(data.calibration_images(100)[:, 0, 0, 0], minlength=10)
        assert counts.min() >= 5
        assert torch.bincount(split.spread(100).labels_B, minlength=10).min() >= 5
