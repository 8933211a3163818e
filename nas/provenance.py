"""What made a result: command, versions, device, date and commit, as they stand in the files of results."""

import shlex
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
    """The command, versions of `packages` and of this one, the device, the date and the commit, as JSON data."""
    return {
        "command": command(),
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


def command() -> str:
    """The command line of this process: a module of the checkout as `python -m` starts it, others by their name."""
    root, program = Path(nas.__file__).parents[1], Path(sys.argv[0]).resolve()
    if program.suffix != ".py" or not program.is_relative_to(root):
        return shlex.join([program.name, *sys.argv[1:]])
    module = ".".join(program.relative_to(root).with_suffix("").parts).removesuffix(".__main__")
    return shlex.join(["python", "-m", module, *sys.argv[1:]])
