"""onnxruntime-web in a real browser keeps the contract; the page is what its timing needs it to be."""

import functools
import gc
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from hardware_profiles.errors import ProfileError
from hardware_profiles.runtimes import Runtime, get_runtime
from tests.hardware_profiles.runtime_contract import FP32, RuntimeContract

pytest.importorskip("selenium", reason="the extra 'browser' isn't installed")

from hardware_profiles.runtimes.browser import BrowserRuntime
from hardware_profiles.runtimes.onnxruntime_web import FILES, find_onnxruntime_web


@functools.cache
def shared_runtime(num_threads: int) -> BrowserRuntime:
    """One browser for all tests that want as many threads, closed when the tests end."""
    return BrowserRuntime(num_threads=num_threads)


@pytest.fixture(autouse=True, scope="module")
def _browser() -> None:
    try:
        shared_runtime(1)
    except ProfileError as error:
        pytest.skip(str(error))


class TestBrowserRuntime(RuntimeContract):
    def make(self, *, num_threads: int = 1, device: str = "") -> Runtime:
        return BrowserRuntime(num_threads=num_threads, device=device) if device else shared_runtime(num_threads)


def test_a_device_it_does_not_have_is_refused() -> None:
    assert BrowserRuntime(device="cpu").device == "CPU"
    with pytest.raises(ProfileError, match="unknown device 'webgpu'; available: CPU"):
        BrowserRuntime(device="webgpu")


def test_it_is_found_by_its_name() -> None:
    assert get_runtime("browser", num_threads=2).num_threads == 2


def test_the_page_is_isolated_and_has_its_threads() -> None:
    for num_threads in (1, 2):
        found, _ = shared_runtime(num_threads).page.call("describe")
        assert found["isolated"] is True
        assert found["threads"] == num_threads


def test_sessions_are_forgotten_with_the_next_call() -> None:
    runtime = shared_runtime(1)
    kept = runtime.load(FP32)
    gc.collect()
    before = runtime.page.call("describe")[0]["sessions"]
    dropped = runtime.load(FP32)
    sample = dropped.sampler({"x0": RuntimeContract.x})
    assert sample(2) >= 0
    assert runtime.page.call("describe")[0]["sessions"] == before + 1
    del dropped, sample
    gc.collect()
    assert runtime.page.call("describe")[0]["sessions"] == before
    assert len(kept.run({"x0": RuntimeContract.x})) == 2


INTERRUPTED = """
import sys
from hardware_profiles.runtimes.browser import BrowserRuntime
from tests.hardware_profiles.runtime_contract import FP32, RuntimeContract
sample = BrowserRuntime().load(FP32).sampler({"x0": RuntimeContract.x})
print("loaded", flush=True)
while True:
    sample(1000)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_program_that_is_interrupted_or_killed_leaves_no_browser_behind(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"loaded\n"
        started = psutil.Process(program.pid).children(recursive=True)
        assert any("chrom" in process.name() for process in started)
        program.send_signal(number)
        program.communicate(timeout=30)
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not alive


def test_a_browser_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRIDNAS_BROWSER", "/nowhere/chromium")
    with pytest.raises(ProfileError, match="there is no /nowhere/chromium; install it .* or set HYBRIDNAS_BROWSER"):
        BrowserRuntime()


def test_a_browser_that_does_not_start_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "chromium"
    script.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Chromium 1.2.3 || exit 1\n')
    script.chmod(0o755)
    monkeypatch.setenv("HYBRIDNAS_BROWSER", str(script))
    runtime = BrowserRuntime()
    assert runtime.version.endswith("Chromium 1.2.3")
    with pytest.raises(ProfileError, match="doesn't start"):
        runtime.load(FP32)


def test_the_package_is_fetched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = find_onnxruntime_web()
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    monkeypatch.setenv("PATH", "")
    assert find_onnxruntime_web() == folder


@pytest.mark.parametrize(
    ("npm", "rule"),
    [
        (None, "fetches onnxruntime-web by npm, which isn't there; install it"),
        ("echo no network >&2; exit 1", "npm can't fetch onnxruntime-web@.*: no network; mend npm's registry"),
        ("echo nonsense", "npm can't fetch onnxruntime-web"),
        ("""echo other > other.tgz; echo '[{"filename": "other.tgz"}]'""", "npm fetched another onnxruntime-web"),
    ],
)
def test_a_package_that_cannot_be_fetched_leaves_nothing(
    npm: str | None, rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs, cache = tmp_path / "bin", tmp_path / "cache"
    programs.mkdir()
    if npm is not None:
        (programs / "npm").write_text(f"#!/bin/sh\n{npm}\n")
        (programs / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("HYBRIDNAS_CACHE", str(cache))
    with pytest.raises(ProfileError, match=rule):
        find_onnxruntime_web()
    assert not list(cache.iterdir())
