"""The files of npm's package onnxruntime-web that a page needs, fetched once and kept."""

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from hardware_profiles.errors import ProfileError
from hardware_profiles.runtimes.cache import cache_folder

VERSION = "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Of the package's archive, as the registry gives it (base64)."""

FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""The processor's build alone: the others add WebGPU and WebNN."""

FETCH_TIMEOUT_S = 600.0


def find_onnxruntime_web() -> Path:
    """The folder with `FILES` in `$HYBRIDNAS_CACHE` (or `~/.cache/hybridnas`); npm fetches them where they are missing.

    Raises:
        ProfileError: npm is missing or can't fetch the package, or what it fetched is another.
    """
    cache = cache_folder()
    folder = cache / f"onnxruntime-web-{VERSION}"
    if not folder.is_dir():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache) as temporary:
                files = Path(temporary) / "files"
                _extract(_fetch(Path(temporary)), files)
                _move(files, folder)
        except OSError as error:
            raise ProfileError(
                f"can't keep onnxruntime-web in {str(cache)!r}: {error}; set HYBRIDNAS_CACHE to another folder"
            ) from error
    return folder


def _fetch(folder: Path) -> Path:
    """The package's archive, from npm's own cache where it is there."""
    npm, package = shutil.which("npm"), f"onnxruntime-web@{VERSION}"
    if npm is None:
        raise ProfileError(
            "runtime 'browser' fetches onnxruntime-web by npm, which isn't there; install it (Debian: apt install npm)"
        )
    command = [npm, "pack", package, "--prefer-offline", "--json", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=True)
        return folder / json.loads(done.stdout)[0]["filename"]
    except (subprocess.SubprocessError, ValueError, LookupError) as error:
        told = " ".join((getattr(error, "stderr", None) or str(error)).split())
        raise ProfileError(
            f"npm can't fetch {package}: {told[:300]}; mend npm's registry, or fetch it where there is one and copy "
            f"the folder onnxruntime-web-{VERSION} of its cache"
        ) from error


def _extract(archive: Path, folder: Path) -> None:
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != SHA512:
        raise ProfileError(
            f"npm fetched another onnxruntime-web {VERSION} (SHA-512 {found[:12]}..., not {SHA512[:12]}...); mend "
            "npm's registry or its cache"
        )
    folder.mkdir()
    with tarfile.open(archive) as package:
        for name in FILES:
            member = package.extractfile(f"package/dist/{name}")
            assert member is not None, name  # the hash says so
            (folder / name).write_bytes(member.read())


def _move(files: Path, folder: Path) -> None:
    """Another process may have been quicker, with the same files."""
    try:
        files.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
