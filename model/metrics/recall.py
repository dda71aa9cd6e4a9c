"""How much of what was true stands in the list."""

from __future__ import annotations

import numpy as np

from model.metrics.hits import Hits


def recall(hits: Hits, k: int) -> np.ndarray:
    """Recall@k of each user, [U]: hits in the first k places as a share of *all* true items, also where there are more than k.

    Source: Manning, Raghavan and Schütze, "Introduction to Information Retrieval", 2008, section 8.3.
    """
    return hits.at(k).sum(1) / hits.truth_U
