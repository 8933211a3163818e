"""How the command line ends when it can't go on: a user's mistake is one line, never a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cyclopts import CycloptsError

from nas.errors import UserError


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Exit with 2 after a mistake of the user's in the block, with 130 after an interruption."""
    try:
        yield
    except CycloptsError as error:
        _exit(f"{' '.join(str(error).split())} `nas --help` and `nas VERB --help` list what there is.")
    except KeyboardInterrupt:
        _exit("interrupted; the same command continues where it stopped", code=130)
    except OSError as error:
        if error.errno is None:
            raise
        _exit(f"{error.filename or 'a file'}: {error.strerror}; make room or choose another place, then run it again")
    except ValueError as error:
        if not isinstance(error, _user_errors()):
            raise
        _exit(" ".join(str(error).split()))


def _user_errors() -> tuple[type[ValueError], ...]:
    from hardware_profiles.errors import ProfileError
    from search_spaces.errors import SpaceError

    return UserError, ProfileError, SpaceError


def _exit(message: str, *, code: int = 2) -> None:
    print(f"nas: {message}", file=sys.stderr)
    sys.exit(code)
