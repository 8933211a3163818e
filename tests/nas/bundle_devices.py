"""Where bundles are run in tests: Python with onnxruntime and numpy alone, and a machine reached by ssh."""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SFTP_SERVERS = [f"/usr/{folder}/sftp-server" for folder in ("lib/openssh", "libexec/openssh", "lib/ssh", "libexec")]

ALLOWED = """
import sys

class OnlyTheseTwo:
    # Finds nothing but the standard library, what is beside the script, numpy and onnxruntime.
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top in {"hardware_profiles", "numpy", "onnxruntime", "sitecustomize"}:
            return None
        if any(frame_is_library(frame) for frame in callers()):
            return None
        raise ImportError(f"{name} isn't on the device")

def callers():
    frame = sys._getframe(2)
    while frame is not None:
        yield frame
        frame = frame.f_back

def frame_is_library(frame):
    return frame.f_globals.get("__name__", "").partition(".")[0] in {"numpy", "onnxruntime"}

sys.meta_path.insert(0, OnlyTheseTwo())
"""


def start(bundle: Path, *arguments: str, python: str = sys.executable, imports: Path | None = None) -> subprocess.Popen:
    """Start a bundle's script; with `imports`, a folder, whatever else than numpy and onnxruntime it imports fails."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    if imports is not None:
        (imports / "sitecustomize.py").write_text(ALLOWED)
        environment["PYTHONPATH"] = str(imports)
    command = [python, str(bundle / "run.py"), *arguments]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def run(bundle: Path, *arguments: str, python: str = sys.executable, imports: Path | None = None) -> tuple[int, str]:
    """Exit status and what a bundle's script wrote to stderr."""
    process = start(bundle, *arguments, python=python, imports=imports)
    _, text = process.communicate(timeout=120)
    return process.returncode, text


def make_environment(folder: Path) -> str:
    """Python of a new virtual environment with onnxruntime and numpy; skips where pip can't get them."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    command = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "onnxruntime", "numpy"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if found.returncode:
        pytest.skip(f"pip can't install onnxruntime and numpy here: {found.stderr.strip().splitlines()[-1:]}")
    return python


@contextmanager
def ssh_host(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An sshd of this user on loopback, with keys of its own, which `ssh` and `scp` find by the name that is yielded.

    Commands and copies begin in `folder`/home. Skips where sshd isn't installed.
    """
    sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    ssh, scp, keygen = (shutil.which(name) for name in ("ssh", "scp", "ssh-keygen"))
    server_path = next((path for path in SFTP_SERVERS if Path(path).exists()), None)
    if None in (sshd, ssh, scp, keygen, server_path):
        pytest.skip("sshd, ssh, scp or ssh-keygen isn't installed; `make sshd` installs them")
    for name in ("host_key", "user_key"):
        subprocess.run([str(keygen), "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    (folder / "authorized").write_text((folder / "user_key.pub").read_text())
    home = folder / "home"
    home.mkdir()
    (folder / "shell").write_text(f'#!/bin/sh\ncd {home} && exec sh -c "$SSH_ORIGINAL_COMMAND"\n')
    (folder / "shell").chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host_key\nAuthorizedKeysFile {folder}/authorized\n"
        f"PidFile {folder}/pid\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
        f"Subsystem sftp {server_path} -d {home}\nForceCommand {folder}/shell\n"
    )
    (folder / "ssh_config").write_text(
        f"Host device\n HostName 127.0.0.1\n Port {port}\n User {getpass.getuser()}\n IdentityFile {folder}/user_key\n"
        f" IdentitiesOnly yes\n StrictHostKeyChecking no\n UserKnownHostsFile {folder}/known\n LogLevel ERROR\n"
    )
    tools = folder / "bin"
    tools.mkdir()
    for name, program in (("ssh", ssh), ("scp", scp)):
        (tools / name).write_text(f'#!/bin/sh\nexec {program} -F {folder}/ssh_config "$@"\n')
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd wants it for privilege separation
    server = subprocess.Popen([str(sshd), "-D", "-e", "-f", str(folder / "sshd_config")], stderr=subprocess.PIPE)
    try:
        _wait_for(port, server)
        yield "device"
    finally:
        server.terminate()
        server.wait(timeout=10)


def _wait_for(port: int, server: subprocess.Popen) -> None:
    end_s = time.monotonic() + 20
    while time.monotonic() < end_s and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    assert server.stderr is not None
    pytest.skip(f"sshd doesn't start here: {server.stderr.read().decode() if server.poll() is not None else 'timeout'}")
