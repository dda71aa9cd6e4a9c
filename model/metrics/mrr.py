"""How far down the first hit stands."""

from __future__ import annotations

import numpy as np

from model.metrics.hits import Hits


def mrr(hits: Hits, k: int) -> np.ndarray:
    """Reciprocal rank of each user's first hit within k places, [U]; 0 without one. Its mean is MRR@k.

    Source: Voorhees, "The TREC-8 question answering track report", 1999.
    """
    hit_UK = hits.at(k)
    return np.where(hit_UK.any(1), 1 / (1 + hit_UK.argmax(1)), 0.0)
