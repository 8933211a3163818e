"""A data set is found by name, path or dotted path, and options are checked."""

from pathlib import Path

import psutil
import pytest

from nas.data import ImageData, load_data
from nas.errors import UserError
from tests.nas.data.files import write_classes


def test_dotted_path_is_called_with_the_options() -> None:
    data = load_data("tests.tiny_data:load", image_size=16, num_channels=3, num_validation=100, seed=3)
    assert (data.image_size, data.num_channels, len(data.validation)) == (16, 3, 100)


def test_progress_is_told_about_every_image(tmp_path: Path) -> None:
    reports: list[tuple[float, float]] = []
    write_classes(tmp_path, {"a": 300, "b": 10})
    load_data(str(tmp_path), image_size=8, progress=lambda done, total, message="": reports.append((done, total)))
    assert reports == [(256, 310), (310, 310)]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("fashion-mnits", "unknown data set 'fashion-mnits'; available: .* Did you mean fashion-mnist?"),
        ("./photos", "folder ./photos does not exist"),
        ("a/b", "folder a/b does not exist"),
        ("pyproject.toml", "is a file; give the folder"),
        ("no_such_package.data:load", "data set 'no_such_package.data:load' can't be imported"),
        ("tests.tiny_data:lod", "data set 'tests.tiny_data:lod' can't be imported .* 'lod'"),
        (":load", "data set ':load' can't be imported"),
        ("tests.nas.data.test_load:returns_nothing", "returned NoneType; return nas.data.from_arrays"),
        ("tests.nas.data.test_load:ignores_size", "returned 1-channel images of size 32; any and 8 were asked for"),
    ],
)
def test_unknown_source_is_refused(source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_data(source, image_size=8)


def returns_nothing(**_: object) -> None:
    """A user's function that forgets to return."""


def ignores_size(**_: object) -> ImageData:
    """A user's function that keeps its own image size."""
    return load_data("tests.tiny_data:load", image_size=32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "image size 0 is too small"),
        ({"num_channels": 4}, "4 channels are not possible"),
        ({"num_validation": 0}, "0 validation images are too few"),
        ({"num_validation": 599}, "599 validation images cannot be cut from 600 .* choose 4 to 596"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_data("tests.tiny_data:load", **({"image_size": 8} | options))


def test_images_that_do_not_fit_into_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_classes(tmp_path, {"a": 9, "b": 9})
    memory = psutil.virtual_memory()._replace(available=1000)
    monkeypatch.setattr("nas.data.decode.psutil.virtual_memory", lambda: memory)
    with pytest.raises(UserError, match="18 images of 8x8 need .* choose a smaller image size"):
        load_data(str(tmp_path), image_size=8, stream=False)
