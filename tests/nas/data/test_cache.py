"""Decoded images are kept on disk, and only used for the files they came from."""

from pathlib import Path

import pytest

from nas.data import load_data
from nas.data.cache import default_cache_dir
from nas.errors import UserError
from tests.nas.data.files import png, write_classes, write_parquet


def test_second_load_decodes_nothing_and_a_changed_file_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_classes(tmp_path / "data", {"a": 20, "b": 20})
    options = {"image_size": 8, "cache_dir": tmp_path / "cache"}
    first = load_data(str(tmp_path / "data"), **options)
    with monkeypatch.context() as patch:
        patch.setattr("nas.data.stream_source.decode_images", None)
        assert load_data(str(tmp_path / "data"), **options).fingerprint == first.fingerprint
    (tmp_path / "data" / "a" / "0.png").write_bytes(png(77))
    assert load_data(str(tmp_path / "data"), **options).fingerprint != first.fingerprint


def test_damaged_cache_is_made_again(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data" / "train.parquet", [0, 1] * 20)
    options = {"image_size": 8, "cache_dir": tmp_path / "cache"}
    first = load_data(str(tmp_path / "data"), **options)
    (stored,) = (tmp_path / "cache").rglob("*.safetensors")
    stored.write_bytes(b"junk")
    assert load_data(str(tmp_path / "data"), **options).fingerprint == first.fingerprint
    assert stored.stat().st_size > 1000


def test_cache_that_cannot_be_written_is_the_users_error(tmp_path: Path) -> None:
    write_classes(tmp_path / "data", {"a": 20, "b": 20})
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(UserError, match="cannot write .* set HYBRIDNAS_CACHE to another folder"):
        load_data(str(tmp_path / "data"), image_size=8, cache_dir=tmp_path / "cache")


def test_cache_folder_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HYBRIDNAS_CACHE", str(tmp_path))
    assert default_cache_dir() == tmp_path
    monkeypatch.delenv("HYBRIDNAS_CACHE")
    assert default_cache_dir() == Path.home() / ".cache" / "hybridnas"
