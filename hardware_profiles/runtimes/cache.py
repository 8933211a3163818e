"""Where runtimes keep what they fetched or made."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$HYBRIDNAS_CACHE`, or `~/.cache/hybridnas`; it may not be there yet."""
    return Path(os.environ.get("HYBRIDNAS_CACHE") or "~/.cache/hybridnas").expanduser()
