"""Normalised discounted cumulative gain: hits count more near the top."""

from __future__ import annotations

import numpy as np

from model.metrics.hits import Hits


def ndcg(hits: Hits, k: int) -> np.ndarray:
    """NDCG@k of each user, [U]: sum of 1 / log2(1 + place) over hits, as a share of the best possible sum.

    The ideal list has min(k, |truth|) hits at its top. Source: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR
    techniques", ACM TOIS 20(4), 2002, with binary gains.
    """
    gain_K = 1 / np.log2(np.arange(2, 2 + k))
    ideal_K = np.cumsum(gain_K)
    return hits.at(k) @ gain_K / ideal_K[np.minimum(k, hits.truth_U) - 1]
