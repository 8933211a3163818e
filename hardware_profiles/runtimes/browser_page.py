"""A page in a headless Chromium of its own that does what it is told, over a server on this machine."""

import json
import os
import queue
import secrets
import shutil
import struct
import subprocess
import threading
import weakref
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

from selenium.common.exceptions import TimeoutException, WebDriverException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from urllib3.exceptions import HTTPError

from hardware_profiles.errors import ProfileError

PAGE = Path(__file__).with_name("browser_page.html")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MEDIA_TYPES = {".html": "text/html; charset=utf-8", ".mjs": "text/javascript", ".wasm": "application/wasm"}
ISOLATION = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
"""Headers without which a page has no shared memory, so no threads, and a clock of 100 instead of 5 us."""

CHECK_S = 10.0
"""A page that says nothing for so long is asked whether it still lives."""


class PageError(Exception):
    """What went wrong inside the page, in its words."""


def find_browser() -> str:
    """Path of the browser: `$HYBRIDNAS_BROWSER`, else the first of `BROWSERS` on the path; ProfileError without one."""
    return _find("a browser", os.environ.get("HYBRIDNAS_BROWSER"), BROWSERS, "HYBRIDNAS_BROWSER", "chromium")


def find_driver() -> str:
    """Path of the browser's driver: `$SE_CHROMEDRIVER` as everywhere in Selenium, else chromedriver on the path."""
    given = os.environ.get("SE_CHROMEDRIVER")
    return _find("the browser's driver", given, ("chromedriver",), "SE_CHROMEDRIVER", "chromium-driver")


def _find(what: str, given: str | None, names: tuple[str, ...], variable: str, package: str) -> str:
    found = next((path for name in ([given] if given else names) if (path := shutil.which(name))), None)
    if found is None:
        raise ProfileError(
            f"the runtime 'browser' needs {what}, and there is no {given or ' or '.join(names)}; install it (Debian: "
            f"apt install {package}) or set {variable} to its path"
        )
    return found


class Page:
    """One page with onnxruntime-web from the folder `library`; the browser goes when the page is collected.

    Raises:
        ProfileError: the browser doesn't start, or stopped while something was asked of it.
    """

    def __init__(self, browser: str, driver: str, library: Path, *, num_threads: int) -> None:
        self._lock, self._numbers, self._released = threading.Lock(), count(1), deque[int]()
        self._server = _Server(library)
        threading.Thread(target=self._server.serve_forever, daemon=True, name="browser page").start()
        try:
            self._driver = _launch(browser, driver)
        except WebDriverException as error:
            _stop(self._server)
            raise ProfileError(f"{browser} doesn't start: {_first_line(error)}; try it by hand, or another") from error
        weakref.finalize(self, _close, self._driver, self._server, _watch(self._driver))
        try:
            self._driver.get(f"{self._server.url}?threads={num_threads}")
        except WebDriverException as error:
            raise self._stopped(error) from error
        if not self.call("describe")[0]["isolated"]:
            raise ProfileError(f"{browser} doesn't isolate pages, so they have no threads; take a newer one")

    def new_key(self) -> int:
        """A number that nothing else in the page has."""
        return next(self._numbers)

    def release(self, key: int) -> None:
        """Forget what has this key, with the next call: a finalizer may be in the midst of another one."""
        self._released.append(key)

    def call(self, name: str, data: bytes = b"", **arguments: Any) -> tuple[dict[str, Any], bytes]:
        """What the page's function `name` answers: values and raw bytes. Calls of several threads go one by one.

        Raises:
            PageError: the function failed.
            ProfileError: the browser stopped.
        """
        with self._lock:
            number = next(self._numbers)
            released = [self._released.popleft() for _ in range(len(self._released))]
            header = {"call": name, "number": number, "released": released, **arguments}
            self._server.commands.put(pack(header, data))
            answer: dict[str, Any] = {}
            while answer.get("number") != number:  # an interrupted call left its answer
                answer, values = unpack(self._wait())
        if "error" in answer:
            raise PageError(" ".join(answer["error"].split()))
        return answer, values

    def _wait(self) -> bytes:
        while True:
            try:
                return self._server.replies.get(timeout=CHECK_S)
            except queue.Empty:
                self._check_alive()

    def _check_alive(self) -> None:
        try:
            self._driver.execute_script("")
        except TimeoutException:
            pass  # it is busy
        except (WebDriverException, HTTPError) as error:
            raise self._stopped(error) from error

    def _stopped(self, error: Exception) -> ProfileError:
        return ProfileError(f"the browser stopped: {_first_line(error)}; its memory may be full, try again")


def pack(header: dict[str, Any], data: bytes) -> bytes:
    """One message: length of the JSON header in 4 bytes, the header, raw bytes."""
    text = json.dumps(header).encode()
    return b"".join((struct.pack("<I", len(text)), text, data))


def unpack(message: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and raw bytes of a message."""
    end = 4 + struct.unpack_from("<I", message)[0]
    return json.loads(message[4:end]), message[end:]


class _Server(ThreadingHTTPServer):
    """Files of the page, and the exchange: the page posts an answer and is given the next command."""

    daemon_threads = True

    def __init__(self, library: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = f"/{secrets.token_urlsafe()}/"  # other users of this machine can't guess it
        self.url = f"http://127.0.0.1:{self.server_address[1]}{self.root}"
        self.files = {self.root: PAGE} | {f"{self.root}{path.name}": path for path in library.iterdir()}
        self.commands: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.replies: queue.SimpleQueue[bytes] = queue.SimpleQueue()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # one connection for all exchanges
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        path = self.server.files.get(self.path.partition("?")[0])
        if path is None:
            self.send_error(404)
        else:
            self._send(path.read_bytes(), MEDIA_TYPES[path.suffix])

    def do_POST(self) -> None:
        if self.path != f"{self.server.root}exchange":
            self.send_error(404)
            return
        self.server.replies.put(self.rfile.read(int(self.headers["Content-Length"])))
        command = self.server.commands.get()
        if command is None:
            self.close_connection = True
        else:
            self._send(command, "application/octet-stream")

    def _send(self, content: bytes, media_type: str) -> None:
        self.send_response(200)
        for name, value in {**ISOLATION, "Content-Type": media_type, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: progress is shown elsewhere."""


def _launch(browser: str, driver: str) -> Chrome:
    options = ChromeOptions()
    options.binary_location = browser
    options.add_argument("--headless=new")
    options.add_argument("--disable-dev-shm-usage")  # containers have too little of it
    if hasattr(os, "getuid") and os.getuid() == 0:
        options.add_argument("--no-sandbox")  # root can't have one
    # A session of its own: Ctrl-C is this process's to handle, and closes the browser in good order.
    service = ChromeService(executable_path=driver, popen_kw={"start_new_session": True})
    return Chrome(options=options, service=service)


def _watch(driver: Chrome) -> subprocess.Popen[bytes]:
    """A process that ends driver and browser, one process group, when its pipe closes, with this one at the latest."""
    command = ["sh", "-c", 'read -r _; kill -s TERM -- "-$1"', "sh", str(driver.service.process.pid)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)


def _close(driver: Chrome, server: _Server, watcher: subprocess.Popen[bytes]) -> None:
    _stop(server)
    driver.quit()
    watcher.communicate()


def _stop(server: _Server) -> None:
    server.commands.put(None)
    server.shutdown()
    server.server_close()


def _first_line(error: Exception) -> str:
    return str(getattr(error, "msg", None) or error).partition("\n")[0]
