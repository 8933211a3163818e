"""onnxruntime-web (WebAssembly with SIMD, threads) in a headless Chromium on this machine."""

import re
import subprocess
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hardware_profiles.errors import ProfileError, unknown_name
from hardware_profiles.measure import WARM_CALLS, WARM_S, Sampler
from hardware_profiles.runtimes.browser_page import Page, PageError, find_browser, find_driver
from hardware_profiles.runtimes.onnxruntime_web import VERSION, find_onnxruntime_web
from hardware_profiles.runtimes.runtime import Runtime, Session, check_threads


class BrowserRuntime(Runtime):
    """onnxruntime-web's WebAssembly provider with all graph optimisations, in a page of its own.

    Raises:
        ProfileError: the browser, its driver, or npm and the package are missing.
    """

    name = "browser"
    precisions = ("fp32", "int8", "int8-dynamic", "w8", "w4")
    device = "CPU"

    def __init__(self, *, num_threads: int = 1, device: str = "") -> None:
        if device.upper() not in ("", self.device):
            raise ProfileError(unknown_name("device", device, [self.device]))
        self.num_threads = check_threads(num_threads)
        self._browser, self._driver, self._library = find_browser(), find_driver(), find_onnxruntime_web()
        self.version = f"onnxruntime-web {VERSION}, {_browser_version(self._browser)}"

    @cached_property
    def page(self) -> Page:
        """Opened with the first model: whoever asks for the version needs none."""
        return Page(self._browser, self._driver, self._library, num_threads=self.num_threads)

    def load(self, model: bytes | str | Path) -> Session:
        what = "the model" if isinstance(model, bytes) else f"model file {str(model)!r}"
        if not isinstance(model, bytes) and not Path(model).is_file():
            raise ProfileError(f"no {what}; export the model first")
        content = model if isinstance(model, bytes) else Path(model).read_bytes()
        key = self.page.new_key()
        try:
            names, _ = self.page.call("load", content, session=key)
        except PageError as error:
            raise ProfileError(f"{self.version} refuses {what}: {error}") from error
        return BrowserSession(self.page, key, names["inputs"])


class BrowserSession(Session):
    """A model loaded by `BrowserRuntime`; the page forgets it when this is collected."""

    def __init__(self, page: Page, key: int, input_names: list[str]) -> None:
        self._page, self._key, self._input_names = page, key, input_names
        weakref.finalize(self, page.release, key)

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return self.run_all([inputs])[0]

    def run_all(self, batches: Sequence[Mapping[str, np.ndarray]]) -> list[list[np.ndarray]]:
        described = [self._describe(inputs) for inputs in batches]
        try:
            answer, values = self._page.call(
                "run", b"".join(data for _, data in described), session=self._key, batches=[a for a, _ in described]
            )
        except PageError as error:
            raise ProfileError(f"the model can't run on these inputs: {error}") from error
        found, offset = [], 0
        for arrays in answer["batches"]:
            outputs = []
            for array in arrays:
                output = np.frombuffer(values, array["type"], int(np.prod(array["dims"])), offset)
                outputs.append(output.reshape(array["dims"]).copy())
                offset += output.nbytes
            found.append(outputs)
        return found

    def runner(self, inputs: Mapping[str, np.ndarray]) -> Callable[[], object]:
        feed = self._feed(inputs)
        once = {"calls": 1, "ms": 0}
        return lambda: self._page.call("sample", session=self._key, feed=feed.key, loops=0, warm=once)

    def sampler(self, inputs: Mapping[str, np.ndarray]) -> Sampler:
        """Loop and clock are the page's."""
        feed = self._feed(inputs)
        warm = {"calls": WARM_CALLS, "ms": 1e3 * WARM_S}

        def sample(num_loops: int) -> float:
            answer, _ = self._page.call("sample", session=self._key, feed=feed.key, loops=num_loops, warm=warm)
            return float(answer["seconds"])

        return sample

    def _feed(self, inputs: Mapping[str, np.ndarray]) -> "Feed":
        self.run(inputs)  # whoever times these inputs learns first whether they fit
        return Feed(self._page, *self._describe(inputs))

    def _describe(self, inputs: Mapping[str, np.ndarray]) -> tuple[list[dict[str, Any]], bytes]:
        """Names, types, shapes and sizes in bytes of the inputs; the bytes of all, one after the other."""
        if set(inputs) != set(self._input_names):
            raise ProfileError(f"inputs {sorted(inputs)} don't fit; the model takes {sorted(self._input_names)}")
        described = [
            {"name": name, "type": value.dtype.name, "dims": value.shape, "size": value.nbytes}
            for name, value in inputs.items()
        ]
        return described, b"".join(value.tobytes() for value in inputs.values())


class Feed:
    """Inputs kept in the page until this is collected."""

    def __init__(self, page: Page, described: list[dict[str, Any]], data: bytes) -> None:
        self.key = page.new_key()
        page.call("feed", data, feed=self.key, arrays=described)
        weakref.finalize(self, page.release, self.key)


def _browser_version(browser: str) -> str:
    """Its name and version, such as "Chromium 156.0.8078.79"."""
    done = subprocess.run([browser, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"(\S+) (\d+(?:\.\d+)+)", done.stdout)
    if found is None:
        raise ProfileError(f"{browser} --version doesn't tell a version; set HYBRIDNAS_BROWSER to a Chromium or Chrome")
    return found.group(0)
