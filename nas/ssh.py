"""Measure a bundle on another machine through the system's ssh and scp."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hardware_profiles.sealed import BUNDLE, checksum, read_sealed
from nas.errors import UserError

NO_CONNECTION = 255
"""What ssh exits with when it is ssh that failed, and not the command over there."""

NO_COMMAND = 127


@contextmanager
def measured_on_host(bundle: Path, host: str, output: Path, *, python: str = "python3") -> Iterator[Path]:
    """Copy `bundle` to `host`, run it there, and yield the result's file, in the folder `output`.

    The bundle is in a folder of the host's home that is named by its identity; when a connection is lost, the next
    call finds there what was measured. It is removed once the caller is through without an error.

    Args:
        host: what ssh takes: a name, user@host, or an alias of ~/.ssh/config.
        python: how Python is called over there.

    Raises:
        UserError: there is no ssh, no connection, no Python over there, or the bundle's script failed.
    """
    if host.startswith("-") or not host.strip():
        raise UserError(f"'{host}' is no host; give one as ssh takes it, such as user@raspberrypi")
    missing = [program for program in ("ssh", "scp") if shutil.which(program) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} isn't installed here; install OpenSSH's client, or use --bundle")
    manifest = read_sealed(bundle / "manifest.json", BUNDLE, way_out="make the bundle again")
    folder = f"hybridnas-{checksum(manifest)[:16]}"
    if _ssh(host, f"test -f {folder}/copied", allowed=(0, 1)) == 1:
        _ssh(host, f"mkdir -p {folder}")
        _call(["scp", "-q", "-r", *map(str, sorted(bundle.iterdir())), f"{host}:{folder}/"], host)
        _ssh(host, f"touch {folder}/copied")
    status = _ssh(host, f"cd {folder} && exec {python} run.py", allowed=(0, 1, 2, NO_COMMAND))
    if status == NO_COMMAND:
        raise UserError(f"'{python}' isn't there on {host}; say with --host-python what Python is called")
    if status:
        raise UserError(f"run.py failed on {host}, as it said above; what it measured stays there in ~/{folder}")
    output.mkdir(parents=True, exist_ok=True)
    _call(["scp", "-q", f"{host}:{folder}/result.json", str(output / "result.json")], host)
    yield output / "result.json"
    _ssh(host, f"rm -rf {folder}")


def _ssh(host: str, command: str, *, allowed: Sequence[int] = (0,)) -> int:
    return _call(["ssh", host, command], host, allowed=allowed)


def _call(command: Sequence[str], host: str, *, allowed: Sequence[int] = (0,)) -> int:
    """Run a command whose output is shown; UserError when its exit status isn't one of `allowed`."""
    status = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    if status not in allowed:
        what = "connection failed or was lost" if status == NO_CONNECTION else f"{command[0]} ended with {status}"
        raise UserError(f"{host}: {what}; the same command continues with what was measured there")
    return status
