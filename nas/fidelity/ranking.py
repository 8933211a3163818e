"""How well inherited accuracies rank networks, and what MACs alone or another seed would give."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from nas.errors import UserError
from nas.fidelity.options import MIN_RANKED

NUM_RESAMPLES = 2000
NUM_TOP = 5

CORRELATIONS = {"kendall": "Kendall", "kendall_in_bands": "Kendall in bands, mean", "spearman": "Spearman"}
"""Correlations with stand-alone accuracy; the names of `fidelity_figures` have the prefix of a score in front."""

SCORES = {
    "": "inherited accuracy",
    "cross_entropy_": "inherited cross-entropy",
    "true_class_": "inherited probability of the true class",
    "estimate_": "inherited estimated error",
    "macs_": "MACs",
    "seed_": "stand-alone accuracy by another seed",
    "perfect_": "stand-alone accuracy without noise, expected",
}
"""What networks are ranked by."""

GAPS = {
    "gap_pct": "stand-alone minus inherited, mean, points",
    "gap_smallest_pct": "stand-alone minus inherited, smallest, points",
    "gap_largest_pct": "stand-alone minus inherited, largest, points",
    "top5_regret_pct": f"best stand-alone minus best of the {NUM_TOP} with the highest inherited, points",
}
"""The other figures of `fidelity_figures`."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95% interval: of a bootstrap over architectures, or of `noise_ceiling`; NaN where none is."""

    value: float
    low: float = math.nan
    high: float = math.nan

    def to_json(self) -> dict[str, float | None]:
        values = {"value": self.value, "low": self.low, "high": self.high}
        return {name: value if math.isfinite(value) else None for name, value in values.items()}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranked:
    """Architectures to rank, N of them in one order; accuracies are of the test split, in %."""

    standalone_N: np.ndarray
    """Mean over the seeds of `mean_over_seeds`."""
    inherited_N: np.ndarray
    cross_entropy_N: np.ndarray
    """Inherited, in nats; NaN in tables of earlier versions, as the next two."""
    true_class_N: np.ndarray
    """Inherited mean probability of the true class, in %."""
    estimate_N: np.ndarray
    """Inherited estimated error, in %."""
    macs_N: np.ndarray
    band_N: np.ndarray
    """Centre in MMACs; one value for all without bands."""
    seeds_NS: np.ndarray
    """Stand-alone accuracy by seed; NaN where a network wasn't trained with it."""

    def take(self, indices: np.ndarray) -> "Ranked":
        """These architectures; an index may occur several times."""
        return Ranked(**{field.name: getattr(self, field.name)[indices] for field in fields(self)})

    def repeated(self) -> "Ranked":
        """Those that were trained with more than one seed."""
        return self.take(np.flatnonzero(np.isfinite(self.seeds_NS).sum(axis=1) > 1))

    def bands(self) -> "list[Ranked]":
        return [self.take(np.flatnonzero(self.band_N == band)) for band in np.unique(self.band_N)]


Statistic = Callable[[Ranked], float]


def ranked(frame: pd.DataFrame) -> Ranked:
    """The rows to rank from those of `load_rows`: in bands when there are any, else all; complete ones only.

    Raises:
        UserError: there are fewer than three.
    """
    complete = frame.dropna(subset=["standalone_test_pct", "inherited_test_pct"])
    means = mean_over_seeds(complete)
    if frame["band_mmacs"].notna().any():
        means = means[means["band_mmacs"].notna()]
    if len(means) < MIN_RANKED:
        raise UserError(f"{len(means)} architectures have both accuracies; a ranking needs {MIN_RANKED}, train more")
    by_seed = complete.pivot(index="index", columns="seed", values="standalone_test_pct")
    return Ranked(
        standalone_N=means["standalone_test_pct"].to_numpy(float),
        inherited_N=means["inherited_test_pct"].to_numpy(float),
        cross_entropy_N=means["inherited_test_cross_entropy"].to_numpy(float),
        true_class_N=means["inherited_test_true_class_pct"].to_numpy(float),
        estimate_N=means["inherited_test_estimated_error_pct"].to_numpy(float),
        macs_N=means["macs"].to_numpy(float),
        band_N=means["band_mmacs"].fillna(0.0).to_numpy(float),
        seeds_NS=by_seed.loc[means["index"]].to_numpy(float),
    )


def mean_over_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """One row an architecture, its stand-alone test accuracy the mean over its lowest seeds.

    Their number is what every sampled architecture has: a mean of more would vary less than those it is ranked with.
    Column `num_seeds` tells it, and where smallest or largest have fewer.
    """
    fewest = min(frame.loc[frame["role"] == "sampled", "index"].value_counts(), default=1)
    counted = frame.sort_values(["index", "seed"]).groupby("index").head(fewest).groupby("index")
    columns = {"standalone_test_pct": counted["standalone_test_pct"].mean(), "num_seeds": counted.size()}
    return counted.first().assign(**columns).reset_index()


def fidelity_figures(frame: pd.DataFrame, *, seed: int = 0, num_resamples: int = NUM_RESAMPLES) -> dict[str, Estimate]:
    """The figures of `SCORES` x `CORRELATIONS` and of `GAPS` that the rows of `load_rows` allow.

    Without bands there are none of bands, with one seed none of seeds.

    Raises:
        UserError: there are fewer than three architectures to rank.
    """
    table = ranked(frame)
    several = table.repeated()
    scores: dict[str, Callable[[Ranked], np.ndarray]] = {
        "": lambda t: t.inherited_N,
        "cross_entropy_": lambda t: -t.cross_entropy_N,
        "true_class_": lambda t: t.true_class_N,
        "estimate_": lambda t: -t.estimate_N,
        "macs_": lambda t: t.macs_N,
    }
    wanted: dict[str, tuple[Ranked, Statistic]] = {}
    for prefix, score in scores.items():
        if np.isfinite(score(table)).any():
            wanted[f"{prefix}kendall"] = (table, ranking_by(score, stats.kendalltau))
            wanted[f"{prefix}spearman"] = (table, ranking_by(score, stats.spearmanr))
    if len(several.macs_N) > 1:
        wanted["seed_kendall"] = (several, seed_kendall)
    if frame["band_mmacs"].notna().any():
        kendalls = [name for name in wanted if name.endswith("kendall")]
        wanted |= {f"{name}_in_bands": (wanted[name][0], in_bands(wanted[name][1])) for name in kendalls}
    wanted["gap_pct"] = (table, lambda t: float(np.mean(t.standalone_N - t.inherited_N)))
    wanted["top5_regret_pct"] = (table, top_regret)
    figures = {
        name: estimate(rows, statistic, rng=np.random.default_rng(seed), num_resamples=num_resamples)
        for name, (rows, statistic) in wanted.items()
    }
    if "seed_kendall" in wanted:
        correlations = {name: wanted[name][1] for name in CORRELATIONS if name in wanted}
        figures |= noise_ceiling(table, correlations, rng=np.random.default_rng(seed), num_draws=num_resamples)
    for _, row in mean_over_seeds(frame).query("role != 'sampled'").iterrows():
        gap = row["standalone_test_pct"] - row["inherited_test_pct"]
        figures[f"gap_{row['role']}_pct"] = Estimate(value=float(gap))
    return figures


def ranking_table(figures: Mapping[str, Mapping[str, float | None]]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: the correlations among figures as in `fidelity.json`, a row a score, with their intervals."""
    columns = {name: title for name, title in CORRELATIONS.items() if name in figures}
    rows = [
        [title, *("" if (name := prefix + column) not in figures else shown(figures[name]) for column in columns)]
        for prefix, title in SCORES.items()
        if f"{prefix}kendall" in figures
    ]
    return ["ranked by", *columns.values()], rows


def other_rows(figures: Mapping[str, Mapping[str, float | None]]) -> list[tuple[str, str]]:
    """Titles and values, with their intervals, of the figures that are no correlations."""
    return [(title, shown(figures[name])) for name, title in GAPS.items() if name in figures]


def shown(figure: Mapping[str, float | None]) -> str:
    """`0.71 (0.52 to 0.84)`; without interval where there is none."""
    value, low, high = ("–" if figure[key] is None else f"{figure[key]:.2f}" for key in ("value", "low", "high"))
    return value if low == "–" else f"{value} ({low} to {high})"


def estimate(
    table: Ranked, statistic: Statistic, *, rng: np.random.Generator, num_resamples: int = NUM_RESAMPLES
) -> Estimate:
    """A statistic and its percentile interval, from resamples of the architectures of each band.

    `scipy.stats.bootstrap` has no strata. Resamples in which the statistic isn't defined, such as a correlation of
    one architecture drawn N times, are left out.
    """
    groups = [np.flatnonzero(table.band_N == band) for band in np.unique(table.band_N)]
    values = np.array(
        [
            statistic(table.take(np.concatenate([rng.choice(group, len(group)) for group in groups])))
            for _ in range(num_resamples)
        ]
    )
    return Estimate(statistic(table), *interval(values))


def interval(values: np.ndarray) -> tuple[float, float]:
    """That 95% of the finite ones are in; NaN when none is."""
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, [2.5, 97.5]) if len(values) else (math.nan, math.nan)
    return float(low), float(high)


def noise_ceiling(
    table: Ranked, statistics: Mapping[str, Statistic], *, rng: np.random.Generator, num_draws: int
) -> dict[str, Estimate]:
    """What a ranking by true accuracy would have: mean and 95% of what chance makes of it; names begin with `perfect_`.

    One training of an architecture is its true accuracy plus normal noise (`noise_variance`); true accuracies of a
    band are normal, too (empirical Bayes). Each draw takes true accuracies from what the trainings leave possible, and
    other trainings. Empty without two networks of a band that were trained with two seeds.
    """
    noise = noise_variance(table) / np.isfinite(table.seeds_NS).sum(axis=1).min()
    if not math.isfinite(noise):
        return {}
    draws = [drawn(table, noise, rng) for _ in range(num_draws)]
    found = {name: np.array([statistic(draw) for draw in draws]) for name, statistic in statistics.items()}
    return {
        f"perfect_{name}": Estimate(mean_of_finite(values.tolist()), *interval(values))
        for name, values in found.items()
    }


def noise_variance(table: Ranked) -> float:
    """Of one training, in squared points, by how differently two seeds differ within a band; NaN when none tells.

    What a seed does to all networks of a band alike reorders none, so it isn't counted.
    """
    squares, degrees = 0.0, 0
    for band in table.bands():
        for one_N, other_N in itertools.combinations(band.seeds_NS.T, 2):
            differences = (other_N - one_N)[np.isfinite(other_N - one_N)]
            if len(differences) > 1:
                squares += len(differences) * differences.var() / 2
                degrees += len(differences) - 1
    return squares / degrees if degrees else math.nan


def drawn(table: Ranked, noise: float, rng: np.random.Generator) -> Ranked:
    """True accuracies, in the place of inherited ones, and means of trainings that these might have had.

    Args:
        noise: variance of such a mean.
    """
    true_N = np.empty_like(table.standalone_N)
    for band in np.unique(table.band_N):
        found = table.standalone_N[table.band_N == band]
        variance = found.var(ddof=1) if len(found) > 1 else math.inf
        share = 1 - noise / variance if variance > noise else 1e-9  # of the variance that is no noise
        expected = found.mean() + share * (found - found.mean())
        true_N[table.band_N == band] = rng.normal(expected, math.sqrt(share * noise))
    return replace(table, inherited_N=true_N, standalone_N=rng.normal(true_N, math.sqrt(noise)))


def ranking_by(score: Callable[[Ranked], np.ndarray], function: Callable[..., Any]) -> Statistic:
    """How well a score, higher for the better, ranks architectures by a correlation of scipy's."""
    return lambda table: correlation(function, score(table), table.standalone_N)


def seed_kendall(table: Ranked) -> float:
    """How well one training ranks another of the same networks.

    Mean over pairs of seeds, each weighted by its networks: a seed that few were trained with says little.
    """
    pairs = list(itertools.combinations(table.seeds_NS.T, 2))
    found = np.array([correlation(stats.kendalltau, one_N, other_N) for one_N, other_N in pairs])
    counts = np.array([np.isfinite(one_N + other_N).sum() for one_N, other_N in pairs])
    known = np.isfinite(found)
    return float(np.average(found[known], weights=counts[known])) if known.any() else math.nan


def in_bands(statistic: Statistic) -> Statistic:
    """The mean of a statistic over bands, of those in which it is defined."""
    return lambda table: mean_of_finite([statistic(band) for band in table.bands()])


def top_regret(table: Ranked) -> float:
    """What choosing by inherited accuracy costs: best stand-alone accuracy minus the best among the chosen five."""
    chosen = np.argsort(-table.inherited_N, kind="stable")[:NUM_TOP]
    return float(table.standalone_N.max() - table.standalone_N[chosen].max())


def correlation(function: Callable[..., Any], a_N: np.ndarray, b_N: np.ndarray) -> float:
    """Rank correlation where both are finite, ties counted as ties (tau-b); NaN when either side is constant."""
    both = np.isfinite(a_N) & np.isfinite(b_N)
    a_N, b_N = a_N[both], b_N[both]
    if len(a_N) < 2 or np.ptp(a_N) == 0 or np.ptp(b_N) == 0:
        return math.nan
    return float(function(a_N, b_N).statistic)


def mean_of_finite(values: Sequence[float]) -> float:
    """NaN when there is none."""
    finite = [value for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else math.nan
