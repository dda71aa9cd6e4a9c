"""Whether lists hold what everybody takes anyway, and how unevenly they share out attention."""

from __future__ import annotations

import numpy as np

from model.metrics.lists import Lists, grid, mean_of_known


def average_popularity(takers: Lists, users: int, k: int) -> np.ndarray:
    """Share of the active users who took an item, averaged over the first k items of each list, [U]; NaN for an empty list.

    ``takers``: how many users took each item of each list; ``users``: how many were active. Raises ValueError for users < 1.
    Source: Yin, Cui, Li, Yao and Chen, "Challenging the long tail recommendation", PVLDB 5(9), 2012 (average recommendation
    popularity), with shares of users for counts, so that windows compare.
    """
    if users < 1:
        raise ValueError(f"{users} active users: popularity is a share of them")
    return mean_of_known(grid(takers, k) / users)


def gini(times: np.ndarray, items: np.ndarray, catalogue: int) -> float:
    """Gini index of how often the items of a catalogue are shown: 0 when all are shown equally, towards 1 when few take all.

    ``items[j]`` items are shown ``times[j]`` times each, all others of the catalogue never: a histogram, which stays small
    however many items there are. Raises ValueError when more items are shown than the catalogue has, or nothing is.
    Source: Gini, 1912; for recommenders Fleder and Hosanagar, "Blockbuster culture's next rise or fall", Management Science
    55(5), 2009. With x sorted, 1-based i: sum of (2 i - n - 1) x_i / (n sum of x).
    """
    times, items = np.asarray(times, np.float64), np.asarray(items, np.float64)
    never = catalogue - items.sum()
    if never < 0 or not (times * items).sum() > 0:
        raise ValueError(f"{items.sum():.0f} items shown {(times * items).sum():.0f} times, of a catalogue of {catalogue}")
    order = np.argsort(times)
    times, items = times[order], items[order]
    before = never + np.cumsum(items) - items
    # The sum of (2 i - n - 1) over i = before + 1 .. before + items.
    weight = items * (2 * before + items - catalogue)
    return float((weight * times).sum() / (catalogue * (times * items).sum()))
