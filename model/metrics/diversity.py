"""How different the items of one list are from each other."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc

from model.metrics.lists import Lists, ragged


def diversity(categories: Lists, k: int) -> np.ndarray:
    """Share of the pairs among the first k items of each list that differ in category, [U].

    Items without a category (NULL) are left out; NaN for a list with fewer than two others. Raises ValueError for k < 1.
    Source: intra-list similarity of Ziegler, McNee, Konstan and Lausen, "Improving recommendation lists through topic
    diversification", WWW 2005, as 1 - similarity, where two items are similar (1) iff their category is the same.
    """
    if k < 1:
        raise ValueError(f"k = {k}: at least one place is needed")
    shown = ragged(categories)
    kept = (shown.places < k) & shown.values.is_valid().to_numpy(zero_copy_only=False)
    codes = pc.dictionary_encode(shown.values).indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    users, width = len(shown.lengths), int(codes.max(initial=0)) + 1
    rows, codes = shown.rows[kept], codes[kept]
    items = np.bincount(rows, minlength=users)
    # n items of one category make n (n - 1) / 2 pairs that do not differ.
    cell, same = np.unique(rows * width + codes, return_counts=True)
    alike = np.bincount(cell // width, weights=same * (same - 1) / 2, minlength=users)
    with np.errstate(invalid="ignore"):
        return np.where(items > 1, 1 - alike / (items * (items - 1) / 2), np.nan)
