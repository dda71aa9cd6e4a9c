"""How unexpected the shown items are."""

from __future__ import annotations

import numpy as np

from model.metrics.lists import Lists, grid, mean_of_known


def novelty(takers: Lists, users: int, k: int) -> np.ndarray:
    """Mean self-information of the first k items of each list, [U], in bits; NaN for an empty list.

    An item that a share p of the active users took has -log2 p bits; one that nobody took counts as taken by one user.
    ``takers`` and ``users`` as in ``average_popularity``. Raises ValueError for users < 1.
    Source: Zhou, Kuscsik, Liu, Medo, Wakeling and Zhang, "Solving the apparent diversity-accuracy dilemma of recommender
    systems", PNAS 107(10), 2010 (surprisal).
    """
    if users < 1:
        raise ValueError(f"{users} active users: novelty is counted against them")
    return mean_of_known(-np.log2(np.clip(grid(takers, k) / users, 1 / users, 1)))
