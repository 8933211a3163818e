"""Shared by all tests: a cache folder of their own, and small data to learn."""

import signal
from collections.abc import Iterator

import pytest

from nas.data import ImageData
from tests import tiny_data as tiny


@pytest.fixture(scope="session", autouse=True)
def interrupts() -> None:
    """Programs that tests start can be interrupted, also where a shell in the background had the tests ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep downloads and decoded images out of the user's cache; sub-processes inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYBRIDNAS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_data() -> ImageData:
    """480 / 120 / 120 grey images of 32x32 in four classes; on the command line `tests.tiny_data:load`."""
    return tiny.load()
