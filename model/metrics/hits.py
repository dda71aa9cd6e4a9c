"""Which places of a list hold a true item. Made once, and cut at any k by each metric."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model.metrics.lists import Lists, ragged


@dataclass(frozen=True)
class Hits:
    """Which places of each user's list hold a true item.

    hit_UK: bool, false where a list is shorter than K. truth_U: int64, how many true items each user has (>= 1).
    """

    hit_UK: np.ndarray
    truth_U: np.ndarray

    def at(self, k: int) -> np.ndarray:
        """The first k places, [U, k]. Raises ValueError when the lists were not read that deep."""
        if not 1 <= k <= self.hit_UK.shape[1]:
            raise ValueError(f"k = {k}: these lists were read to depth {self.hit_UK.shape[1]}")
        return self.hit_UK[:, :k]


def find_hits(lists: Lists, truth: Lists, depth: int) -> Hits:
    """Compare each user's list with the same user's true items, which are aligned with it.

    Raises ValueError for no users, unequal numbers of them, a user without truth (there is nothing to judge), or an item twice
    in one list (it would count twice).
    """
    shown, true = ragged(lists), ragged(truth)
    users = len(shown.lengths)
    if not users or users != len(true.lengths):
        raise ValueError(f"{users} lists and {len(true.lengths)} truths: one of each is needed for every judged user")
    # One code space for both sides; (user, item) pairs become single integers, and membership one sorted search.
    both = pa.chunked_array([shown.values, true.values.cast(shown.values.type)]).combine_chunks()
    if both.null_count:
        raise ValueError(f"{both.null_count} items in the lists are NULL")
    codes = pc.dictionary_encode(both).indices.to_numpy(zero_copy_only=False).astype(np.int64)
    width = int(codes.max(initial=0)) + 1
    shown_pairs = shown.rows * width + codes[: len(shown.rows)]
    true_pairs = np.unique(true.rows * width + codes[len(shown.rows) :])
    truth_U = np.bincount(true_pairs // width, minlength=users)
    if not truth_U.all():
        raise ValueError(f"{int((truth_U == 0).sum())} of {users} users have no true item; leave them out")
    if len(np.unique(shown_pairs)) != len(shown_pairs):
        raise ValueError("an item stands twice in one list")
    hit_UK = np.zeros((users, depth), bool)
    inside = shown.places < depth
    hit_UK[shown.rows[inside], shown.places[inside]] = np.isin(shown_pairs[inside], true_pairs, assume_unique=True)
    return Hits(hit_UK, truth_U)
