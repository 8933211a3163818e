"""JSON files that travel between machines, with a checksum over what they hold. Needs nothing but Python."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from hardware_profiles.errors import ProfileError

VERSION = 3
BUNDLE, RESULT = "hybridnas bundle", "hybridnas measurements"
"""What is measured elsewhere, and what was found there."""


def checksum(content: Any) -> str:
    """SHA-256 (hex) of JSON data."""
    text = json.dumps(content, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_sealed(path: Path, format: str, content: Any) -> None:
    """Write JSON data to `path`, whole or not at all."""
    document = {"format": format, "version": VERSION, "checksum": checksum(content), "content": content}
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(document, file, separators=(",", ":"))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def read_sealed(path: Path, format: str, *, way_out: str) -> dict[str, Any]:
    """What `write_sealed` wrote.

    Raises:
        ProfileError: the file is missing, truncated, altered, or of another format or version; ends with `way_out`.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProfileError(f"can't read {str(path)!r}: {error.strerror}; {way_out}") from error
    except ValueError as error:  # covers broken JSON and broken UTF-8
        raise ProfileError(f"{str(path)!r} is truncated or not JSON; {way_out}") from error
    if not isinstance(document, dict) or document.get("format") != format:
        raise ProfileError(f"{str(path)!r} holds no {format}; {way_out}")
    if document.get("version") != VERSION:
        raise ProfileError(
            f"{str(path)!r} has format version {document.get('version')!r}, this release reads {VERSION}; {way_out}"
        )
    content = document.get("content")
    if not isinstance(content, dict) or document.get("checksum") != checksum(content):
        raise ProfileError(f"{str(path)!r} was altered since it was written; {way_out}")
    return content
