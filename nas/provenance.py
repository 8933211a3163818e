"""What made a result: versions, device, date and commit, as they stand in the files of results."""

import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nas
from hardware_profiles.device import describe_device


def provenance(packages: Iterable[str]) -> dict[str, Any]:
    """Versions of `packages` and of this one, the device, the date and the commit, as JSON data."""
    return {
        "versions": {name: version(name) for name in packages} | {"hybridnas": nas.__version__},
        "device": asdict(describe_device()),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
    }


@cache
def commit() -> str | None:
    """The commit of the checkout that the package runs from, as it is when first asked for; None when installed.

    Marked `-dirty` when tracked files differ from it, those below `results/` aside: they are what programs write.
    """
    root = Path(nas.__file__).parents[1]
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None
    git = partial(subprocess.run, cwd=root, capture_output=True, text=True, check=False)
    head = git(["git", "rev-parse", "--verify", "--quiet", "HEAD"]).stdout.strip()
    differs = git(["git", "diff", "--quiet", "HEAD", "--", ".", ":!results"]).returncode
    return f"{head}-dirty" if head and differs else head or None


def module_command() -> str:
    """The command line of a module that was started with `python -m`."""
    root, program = Path(nas.__file__).parents[1], Path(sys.argv[0]).resolve()
    name = ".".join(program.relative_to(root).with_suffix("").parts) if program.is_relative_to(root) else program.name
    return " ".join(["python -m", name, *sys.argv[1:]])
