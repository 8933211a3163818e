"""The error a user of hardware profiles can mend: one line with the value, the rule and the way out."""

from collections.abc import Iterable
from difflib import get_close_matches


class ProfileError(ValueError):
    """A profile, runtime or model file that can't be used as asked; the message is one line."""


def unknown_name(kind: str, value: str, available: Iterable[str]) -> str:
    """One line saying that no `kind` is called `value`, what there is, and the closest name if one is close."""
    names = sorted(available)
    message = f"unknown {kind} {value!r}; available: {', '.join(names) or 'none'}"
    close = get_close_matches(value, names, n=1)
    return f"{message}. Did you mean {close[0]}?" if close else message


def one_line(error: Exception) -> str:
    """A library's message without its line breaks."""
    return " ".join(str(error).split())
