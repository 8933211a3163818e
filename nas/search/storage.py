"""Where a study is kept: memory, an SQLite file, a journal file, or a database server."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

from optuna.distributions import distribution_to_json
from optuna.exceptions import OptunaError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages._rdb import models
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError
from sqlalchemy.orm import Session

from nas.errors import UserError

JOURNAL = ".journal"
"""Ending of a file that is an append-only journal: the kind of file for NFS, on which SQLite's locks may not work."""

_LOCKED_S = 60.0
"""How long a writer waits for another one's transaction on an SQLite file."""
_NUM_TRIES = 6


class _Database(RDBStorage):
    """Optuna's database, but all genes of a candidate are inserted at once, not each with two queries before."""

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Session
    ) -> models.TrialModel:
        """The trial and all that belongs to it, in the caller's transaction. What the queries are for, genes of other
        choices than earlier candidates have, `Study.open` refuses.
        """
        if template_trial is None or not template_trial.params:
            return super()._get_prepared_new_trial(study_id, template_trial, session)
        without_genes = copy(template_trial)
        without_genes.params = {}
        trial = super()._get_prepared_new_trial(study_id, without_genes, session)
        genes = [
            {
                "trial_id": trial.trial_id,
                "param_name": name,
                "param_value": distribution.to_internal_repr(template_trial.params[name]),
                "distribution_json": distribution_to_json(distribution),
            }
            for name, distribution in template_trial.distributions.items()
        ]
        session.execute(insert(models.TrialParamModel), genes)
        return trial


def is_url(path: str | Path) -> bool:
    return "://" in str(path)


def open_storage(path: str | Path | None) -> BaseStorage:
    """Open or create the storage at `path`: a file (`*.journal`, else SQLite), a URL such as `postgresql://...`, or
    None for memory.
    """
    if path is None:
        return get_storage(None)
    if is_url(path):
        return _database(str(path))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if str(path).endswith(JOURNAL):
        return _journal(Path(path))
    return _database(f"sqlite:///{Path(path).resolve()}")


def _database(url: str) -> BaseStorage:
    options: dict[str, Any] = {"connect_args": {"timeout": _LOCKED_S}} if url.startswith("sqlite") else {}
    for attempt in range(_NUM_TRIES):
        try:
            return get_storage(_Database(url, engine_kwargs=options))
        except (OperationalError, IntegrityError, ProgrammingError):
            if attempt == _NUM_TRIES - 1:
                raise
            time.sleep(0.1 * 2**attempt)  # another process may be creating the same tables
    raise AssertionError("unreachable")


def _journal(path: Path) -> BaseStorage:
    lock = JournalFileSymlinkLock(str(path))
    lock.acquire()
    try:
        _cut_unfinished_line(path)
    finally:
        lock.release()
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def _cut_unfinished_line(path: Path) -> None:
    """Remove the piece of a line that a killed writer left: what is appended to it would be unreadable."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        if content.startswith(b'{"op_code"') and not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)
            os.fsync(file.fileno())


@contextmanager
def storage_errors(where: str) -> Iterator[None]:
    """Turn what a damaged, locked or full storage raises into one line."""
    try:
        yield
    except (SQLAlchemyError, OptunaError, OSError, json.JSONDecodeError) as error:
        cause = error.__cause__ or getattr(error, "orig", None) or error
        raise UserError(
            f"the study {where} cannot be used ({_first_line(cause)}); check the disk, or move it away to start anew"
        ) from error
    except ModuleNotFoundError as error:
        raise UserError(f"the study {where} needs the Python package {error.name!r}; install it") from error


def _first_line(error: object) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
