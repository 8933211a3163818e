"""The rows of a new device's profile, from other devices' profiles and a few whole networks measured on the new one."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hardware_profiles.errors import ProfileError
from hardware_profiles.profile import BlockRow, HardwareProfile, NetworkRow
from hardware_profiles.rows import Blocks
from predictors.transfer import MIN_NETWORKS, LatencyTransfer

LOWEST_SHARE = 0.25
"""No row is predicted below this share of what the mean of the sources says: a search would seek out the mistake."""


class TransferredRows(NamedTuple):
    """What a profile needs of a device whose blocks were not measured."""

    call_overhead_ms: float
    rows: tuple[BlockRow, ...]
    """One for each block and precision that all sources have, in the order of the first."""


def transferred_rows(sources: Sequence[HardwareProfile], networks: Sequence[NetworkRow]) -> TransferredRows:
    """Predict the rows of the device that measured `networks`, ten to twenty of them.

    `LatencyTransfer` explains their latency by what the sources' rows sum up to, by the number of blocks of each
    precision, and by the time that the sources need for each precision and each kind of block (the first word of its
    key). All of this adds up over blocks, so every row gets its share.

    Raises:
        ProfileError: the sources are not of one space and batch size, a network has a block that a source lacks, there
            are fewer than three networks, or one took no time.
    """
    if len(networks) < MIN_NETWORKS:
        raise ProfileError(f"{len(networks)} measured networks can't make a profile; give {MIN_NETWORKS} or more")
    if any(network.latency_ms == 0 for network in networks):
        raise ProfileError("a measured network has a latency of 0 ms; measure it again, or leave it out")
    features = _Features(sources)
    model = features.pretrained()
    model.fit(features.of_networks([n.blocks for n in networks]), [n.latency_ms for n in networks])
    lowest_ms_R = LOWEST_SHARE * model.sources_mean(features.rows_RF)
    latency_ms_R = np.maximum(features.rows_RF @ model.coef_, lowest_ms_R)
    rows = [
        BlockRow(
            key=key,
            precision=precision,
            latency_ms=float(latency_ms),
            spread_pct=0.0,
            num_runs=0,
            size_bytes=sources[0].rows[sources[0].row(key, precision)].size_bytes,
            measured=False,
        )
        for (key, precision), latency_ms in zip(features.index, latency_ms_R, strict=True)
    ]
    return TransferredRows(max(0.0, float(features.call_F @ model.coef_ + model.intercept_)), tuple(rows))


def select_networks(sources: Sequence[HardwareProfile], candidates: Sequence[Blocks], num: int) -> list[int]:
    """Which `num` of the candidates to measure on a new device, for `transferred_rows` to learn most.

    Raises:
        ProfileError: the sources are not of one space and batch size, a candidate has a block that a source lacks, or
            there are too few candidates.
    """
    if not MIN_NETWORKS <= num <= len(candidates):
        raise ProfileError(f"{num} networks to measure must be {MIN_NETWORKS} to {len(candidates)}, the candidates")
    features = _Features(sources)
    return [int(index) for index in features.pretrained().select(features.of_networks(candidates), num)]


class _Features:
    """What `LatencyTransfer` learns from. A network's features are the sums of its blocks'."""

    def __init__(self, sources: Sequence[HardwareProfile]) -> None:
        _check(sources)
        self._sources = sources
        index = [pair for pair in sources[0].row_index if all(pair in profile.row_index for profile in sources)]
        if not index:
            raise ProfileError(f"profiles {_names(sources)} have no block in common; give profiles of the same space")
        self.index = {pair: row for row, pair in enumerate(index)}
        ms_RD = np.array([[profile.latency_ms(*pair) for profile in sources] for pair in index])
        share_R1 = (ms_RD / np.maximum(ms_RD.sum(axis=0), 1e-12)).mean(axis=1, keepdims=True)
        precision_RP = _one_hot([precision for _, precision in index])
        kind_RK = _one_hot([key.partition(" ")[0] for key, _ in index])
        groups = [precision_RP, precision_RP * share_R1, kind_RK * share_R1]
        self.rows_RF = np.concatenate([ms_RD, *groups], axis=1)
        self.call_F = np.zeros(self.rows_RF.shape[1])
        self.call_F[: len(sources)] = [profile.call_overhead_ms for profile in sources]
        self._groups = tuple(group.shape[1] for group in groups)

    def of_networks(self, networks: Sequence[Blocks]) -> np.ndarray:
        """Shape (N, F); the first columns are the plain sums of the sources, call included."""
        for pair in (pair for network in networks for pair in network):
            if pair not in self.index:
                raise ProfileError(
                    f"block {pair[0]!r} at precision {pair[1]!r} isn't in all of the profiles {_names(self._sources)}; "
                    "give networks of their space, in precisions that all of them have"
                )
        rows = [[self.index[pair] for pair in network] for network in networks]
        return np.stack([self.call_F + self.rows_RF[row].sum(axis=0) for row in rows])

    def pretrained(self) -> LatencyTransfer:
        """A model that knows what the sources measured for their own networks, where their rows have them."""
        measured = [
            (network.blocks, device, network.latency_ms)
            for device, profile in enumerate(self._sources)
            for network in profile.networks
            if network.latency_ms > 0 and all(pair in self.index for pair in network.blocks)
        ]
        unmeasured = set(range(len(self._sources))) - {device for _, device, _ in measured}
        if unmeasured:
            names = _names([self._sources[device] for device in sorted(unmeasured)])
            raise ProfileError(f"profiles {names} have no measured networks to learn from; profile those devices again")
        row_of = {blocks: row for row, blocks in enumerate(dict.fromkeys(blocks for blocks, _, _ in measured))}
        latency_ms_ND = np.full((len(row_of), len(self._sources)), np.nan)
        for blocks, device, latency_ms in measured:
            latency_ms_ND[row_of[blocks], device] = latency_ms
        model = LatencyTransfer(len(self._sources), self._groups)
        return model.pretrain(self.of_networks(list(row_of)), latency_ms_ND)


def _check(sources: Sequence[HardwareProfile]) -> None:
    if not sources:
        raise ProfileError("no profile to transfer from is given; name one or more")
    first = sources[0]
    for profile in sources[1:]:
        if (profile.space, profile.space_fingerprint) != (first.space, first.space_fingerprint):
            raise ProfileError(
                f"profiles {_names([first, profile])} are of different spaces, or versions of one ({first.space!r} and "
                f"{profile.space!r}); give profiles of one space"
            )
        if profile.batch_size != first.batch_size:
            raise ProfileError(
                f"profiles {_names([first, profile])} have batch sizes {first.batch_size} and {profile.batch_size}; "
                "give profiles of one batch size"
            )


def _names(profiles: Sequence[HardwareProfile]) -> str:
    return ", ".join(repr(profile.name) for profile in profiles)


def _one_hot(labels: Sequence[str]) -> np.ndarray:
    names = sorted(set(labels))
    return np.array([[float(label == name) for name in names] for label in labels])
