"""Class folders, with and without splits; bad ones are refused in one line."""

from pathlib import Path

import pytest

from nas.data import load_data
from nas.errors import UserError
from tests.nas.data.files import png, write_classes


def test_class_folders_with_splits(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"cat": 20, "ant": 20, "dog": 20})
    write_classes(tmp_path / "test", {"dog": 4, "ant": 4})
    data = load_data(str(tmp_path), image_size=8)
    assert data.class_names == ("ant", "cat", "dog")
    assert data.test.labels_B.tolist() == [0] * 4 + [2] * 4
    assert (len(data.train), len(data.validation), data.num_channels) == (54, 6, 1)
    assert data.name == tmp_path.name


@pytest.mark.parametrize("name", ["validation", "val", "valid"])
def test_validation_folder_without_a_test_folder_is_the_test(tmp_path: Path, name: str) -> None:
    write_classes(tmp_path / "train", {"a": 20, "b": 20})
    write_classes(tmp_path / name, {"a": 3, "b": 3})
    data = load_data(str(tmp_path), image_size=8, num_validation=10)
    assert [len(split) for split in data.splits.values()] == [30, 10, 6]


def test_three_given_splits_stay_as_they_are_unless_fewer_images_are_wanted(tmp_path: Path) -> None:
    for split, count in (("train", 20), ("val", 10), ("test", 5)):
        write_classes(tmp_path / split, {"a": count, "b": count})
    assert [len(split) for split in load_data(str(tmp_path), image_size=8).splits.values()] == [40, 20, 10]
    assert len(load_data(str(tmp_path), image_size=8, num_validation=6).validation) == 6
    with pytest.raises(UserError, match="30 validation images cannot be cut from 20"):
        load_data(str(tmp_path), image_size=8, num_validation=30)


def test_bare_class_folders_get_all_splits_cut(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 50, "b": 50}, grey=False)
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    (tmp_path / "a" / ".hidden.png").write_text("not an image")
    (tmp_path / ".git").mkdir()
    data = load_data(str(tmp_path), image_size=8)
    assert [len(split) for split in data.splits.values()] == [81, 9, 10]
    assert data.num_channels == 3


def test_one_coloured_image_makes_a_folder_coloured(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 10, "b": 10})
    (tmp_path / "b" / "red.png").write_bytes(png((255, 0, 0)))
    assert load_data(str(tmp_path), image_size=8).num_channels == 3
    assert load_data(str(tmp_path), image_size=8, num_channels=1).num_channels == 1


def test_small_images_are_enlarged(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 10, "b": 10})
    assert load_data(str(tmp_path), image_size=24).image_size == 24


def test_class_with_a_single_image_is_refused(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"ant": 9, "bee": 1})
    write_classes(tmp_path / "test", {"ant": 2, "bee": 2})
    with pytest.raises(UserError, match="class 'bee' of .* has 1 training image; it needs 2 or more"):
        load_data(str(tmp_path), image_size=8)


def test_bad_class_folders_are_refused(tmp_path: Path) -> None:
    one = write_classes(tmp_path / "one", {"only": 9})
    empty = write_classes(tmp_path / "empty", {"a": 9, "b": 0})
    without_train = write_classes(tmp_path / "without", {"test/a": 3, "val/a": 3})
    extra = write_classes(tmp_path / "extra", {"train/a": 9, "train/b": 9, "test/c": 3})
    twice = write_classes(tmp_path / "twice", {"train/a": 9, "val/a": 9, "validation/a": 3})
    (tmp_path / "nothing").mkdir()
    for folder, message in (
        (one, "has one class, 'only'"),
        (empty, "b has no images"),
        (without_train, r"no train split \(found: test, validation\)"),
        (extra, "test/c is not among the 2 training classes"),
        (twice, "are both validation images"),
        (tmp_path / "nothing", "has no class folders"),
    ):
        with pytest.raises(UserError, match=message):
            load_data(str(folder), image_size=8)


@pytest.mark.parametrize("damage", [b"", b"junk", png(3)[:-30], png(3)[:20]])
def test_damaged_image_is_named(tmp_path: Path, damage: bytes) -> None:
    write_classes(tmp_path, {"a": 9, "b": 9})
    (tmp_path / "b" / "bad.png").write_bytes(damage)
    with pytest.raises(UserError, match=r"cannot read the image .*b/bad\.png") as caught:
        load_data(str(tmp_path), image_size=8)
    assert "\n" not in str(caught.value)
