"""What a user of a search space can get wrong, said in one line."""

import difflib
from collections.abc import Iterable


class SpaceError(ValueError):
    """A search space, architecture or policy that can't be: the message has the value, the rule and the way out."""


def unknown_name(kind: str, value: str, available: Iterable[str]) -> str:
    """`unknown <kind> '<value>'`, what there is, and the nearest name when one is near."""
    names = sorted(available)
    near = difflib.get_close_matches(value, names, n=1)
    hint = f". Did you mean {near[0]}?" if near else ""
    return f"unknown {kind} '{value}'; available: {', '.join(names) or 'none'}{hint}"
