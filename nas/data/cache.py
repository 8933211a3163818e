"""Decoded images kept on disk, under a hash of the files they came from."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import PIL
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from nas.data.decode import Arrays
from nas.errors import UserError

FORMAT = 1
"""Raise it when decoding changes, so that older files are not used."""


def default_cache_dir() -> Path:
    """`$HYBRIDNAS_CACHE`, or `~/.cache/hybridnas`."""
    return Path(os.environ.get("HYBRIDNAS_CACHE") or "~/.cache/hybridnas").expanduser()


def cache_key(files: Iterable[Path], *, folder: Path, options: Mapping[str, object]) -> str:
    """Hash of the names (below `folder`) and bytes of `files`, the options of decoding, and the decoder's version."""
    digest = hashlib.sha256(json.dumps([FORMAT, PIL.__version__, dict(options)]).encode())
    for path in files:
        data = path.read_bytes()
        digest.update(f"\n{path.relative_to(folder).as_posix()} {len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()[:32]


def read_cache(cache_dir: Path, key: str) -> dict[str, Arrays] | None:
    """The splits stored under `key`; None when there are none, or the file is damaged."""
    path = _path(cache_dir, key)
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            names = {name.partition(".")[0] for name in file.keys()}  # noqa: SIM118 (not a dict)
            return {
                name: (file.get_tensor(f"{name}.images"), file.get_tensor(f"{name}.labels")) for name in sorted(names)
            }
    except SafetensorError:
        path.unlink()
        return None


def write_cache(cache_dir: Path, key: str, splits: Mapping[str, Arrays]) -> None:
    """Store splits under `key`, whole or not at all.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    tensors = {f"{name}.images": images_BCHW for name, (images_BCHW, _) in splits.items()}
    tensors |= {f"{name}.labels": labels_B for name, (_, labels_B) in splits.items()}
    path = _path(cache_dir, key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            save_file(tensors, Path(folder) / path.name)
            os.replace(Path(folder) / path.name, path)
    except (OSError, SafetensorError) as error:
        size_mb = sum(tensor.nbytes for tensor in tensors.values()) / 1e6
        raise UserError(
            f"cannot write {size_mb:.0f} MB of decoded images to {path.parent}: {error}; free space there or set "
            "HYBRIDNAS_CACHE to another folder"
        ) from error


def _path(cache_dir: Path, key: str) -> Path:
    return cache_dir / "decoded" / f"{key}.safetensors"
