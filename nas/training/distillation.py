"""Losses towards a teacher's class probabilities (B, K), features (B, D) or maps (B, C, H, W); lower is better."""

from collections.abc import Callable

import torch
from torch.nn import functional as F

MAX_IMPORTANCE = 5.0
"""Importance ratios are clipped to this for the sake of stability (Wang et al. 2021)."""


def alpha_divergence(logits_BK: torch.Tensor, soft_BK: torch.Tensor) -> torch.Tensor:
    """Adaptive alpha-divergence (AlphaNet, Wang et al. 2021): for each image the larger of alpha = -1 and alpha = 1.

    With student q and teacher p, D(alpha) = E_q[(p / q)^alpha - 1] / (alpha (alpha - 1)), and its gradient is
    -E_q[(p / q)^alpha grad log q] / alpha. Alpha = 1, which is KL(p, q), punishes a student that is too sure of itself
    less than one that misses a class of the teacher's; alpha = -1 does the reverse. Its ratios q / p have no bound and
    are clipped in value and gradient. Mean over the batch.
    """
    log_q_BK = logits_BK.log_softmax(dim=1)
    q_BK = log_q_BK.detach().exp()
    log_p_BK = soft_BK.clamp_min(torch.finfo(soft_BK.dtype).tiny).log()
    missing_B = (soft_BK * (log_p_BK - log_q_BK)).sum(dim=1)
    ratio_BK = (log_q_BK.detach() - log_p_BK).exp().clamp(max=MAX_IMPORTANCE)
    slope_B = (q_BK * ratio_BK * log_q_BK).sum(dim=1)
    excess_B = (q_BK * (ratio_BK - 1)).sum(dim=1) / 2 + slope_B - slope_B.detach()
    return torch.maximum(missing_B, excess_B).mean()


DIVERGENCES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "kl": F.cross_entropy,  # KL(p, q) but for the teacher's entropy, which has no gradient
    "alpha": alpha_divergence,
}
"""Losses of logits (B, K) towards a teacher's probabilities (B, K), by the name they have among the options."""


def feature_distance(found_BD: torch.Tensor, wanted_BD: torch.Tensor) -> torch.Tensor:
    """Squared distance of features scaled to unit length, mean over the batch: 0 for equal directions, at most 4."""
    return 2 - 2 * F.cosine_similarity(found_BD, wanted_BD, dim=1).mean()


def map_distance(found_BCHW: torch.Tensor, wanted_BCHW: torch.Tensor) -> torch.Tensor:
    """Mean squared error relative to the variance of the wanted maps, which are averaged to the size of those found.

    The loss of a block in DNA (Li et al. 2020): 1 for maps that are constant, at the mean.
    """
    wanted_BCHW = F.adaptive_avg_pool2d(wanted_BCHW, (found_BCHW.shape[2], found_BCHW.shape[3]))
    return F.mse_loss(found_BCHW, wanted_BCHW) / wanted_BCHW.var(correction=0).clamp_min(1e-6)
