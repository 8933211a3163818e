"""Names that a user may give for a part of this package or for one of their own: a known name, or a dotted path."""

import importlib
from collections.abc import Mapping
from typing import Any

from search_spaces.errors import SpaceError, unknown_name


def named(kind: str, name: str, known: Mapping[str, Any], *, error: type[Exception] = SpaceError) -> Any:
    """`known[name]`, or what the dotted path names; `error` where there is neither."""
    if name in known:
        return known[name]
    if ":" not in name:
        raise error(unknown_name(kind, name, known))
    return imported(kind, name, error=error)


def imported(kind: str, path: str, *, error: type[Exception] = SpaceError) -> Any:
    """What `my_package.module:attribute` names; `error`, with one line, where it can't be imported."""
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as reason:
        raise error(f"{kind} '{path}' can't be imported ({reason}); write it as `package.module:name`") from reason
