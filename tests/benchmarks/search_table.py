"""A resumable table of searches: one row a run, and a summary that says what made it."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from joblib import Parallel, delayed  # type: ignore[import-untyped]

from nas.provenance import commit, provenance
from tests.benchmarks.search_methods import of_package

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("numpy", "scipy", "scikit-learn", "pymoo", "optuna", "torch")


def fill(
    path: Path,
    keys: Iterable[Mapping[str, Any]],
    measure: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    *,
    processes: int = 1,
) -> pd.DataFrame:
    """Add `measure(key)` to the table at `path` for each key without a row, saved row by row; all rows.

    A key names its `method`; rows of this package's searchers made with other code are made again.
    """
    commit()  # that of the code which runs, whatever is checked out when the table is done
    frame = pd.read_csv(path, dtype={"code": str}) if path.exists() else pd.DataFrame()
    stamped = [{**key, "code": _code_hash() if of_package(key["method"]) else "-"} for key in keys]
    missing = [key for key in stamped if not _is_row(frame, key).any()]
    path.parent.mkdir(parents=True, exist_ok=True)
    for key, figures in _measured(missing, measure, processes):
        outdated = _is_row(frame, {name: value for name, value in key.items() if name != "code"})
        frame = pd.concat([frame[~outdated], pd.DataFrame([{**key, **figures}])], ignore_index=True)
        frame.to_csv(path, index=False, float_format="%.6g")
        print(" ".join(str(value) for value in frame.iloc[-1]), flush=True)
    return frame


def _is_row(frame: pd.DataFrame, key: Mapping[str, Any]) -> pd.Series:
    """Mask of the rows of `frame` that have the values of `key`."""
    if frame.empty:
        return pd.Series(False, frame.index, dtype=bool)
    return (frame[list(key)] == pd.Series(key)).all(axis=1)


def _measured(
    keys: Iterable[Mapping[str, Any]], measure: Callable[[Mapping[str, Any]], Mapping[str, Any]], processes: int
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Each key with its figures, as soon as these are there."""
    jobs = (delayed(lambda key: (key, measure(key)))(key) for key in keys)
    return iter(Parallel(n_jobs=processes, return_as="generator_unordered")(jobs))


def summarise(path: Path, frame: pd.DataFrame, *, by: Sequence[str], figures: Sequence[str]) -> pd.DataFrame:
    """Mean and standard deviation over seeds, written beside the table at `path` as JSON with what made it."""
    groups = frame.groupby(list(by), sort=True)
    means, spreads = groups[list(figures)].mean(), groups[list(figures)].std()
    about = {
        "code": _code_hash(),
        **provenance(_PACKAGES),
        "seeds": sorted(frame["seed"].unique().tolist()),
        "rows": [
            dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True))
            | {"num_runs": len(group)}
            | {name: {"mean": float(means.loc[key, name]), "std": float(spreads.loc[key, name])} for name in figures}
            for key, group in groups
        ],
    }
    path.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n")
    return means


def _code_hash() -> str:
    """Of the sources that decide what a searcher of this package asks for."""
    sources = sorted([*(_ROOT / "nas" / "search").rglob("*.py"), *(_ROOT / "predictors").glob("*.py")])
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:8]
