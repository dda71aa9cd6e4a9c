"""Ranking metrics over the whole catalogue, with binary gains. No negatives are sampled anywhere.

Shapes: U users, K places of a list. Each metric gives one value a user, so that intervals can be bootstrapped and users split
into segments; ``measure`` gives the means. ``Hits`` is made once and cut at any k up to its K.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

#: One list of item ids a user, best first: Python sequences or an Arrow list array.
Lists: TypeAlias = Sequence[Sequence[Hashable]] | pa.Array | pa.ChunkedArray


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
    shown, true = _ragged(lists), _ragged(truth)
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


def ndcg(hits: Hits, k: int) -> np.ndarray:
    """NDCG@k of each user, [U]: sum of 1 / log2(1 + place) over hits, as a share of the best possible sum.

    The ideal list has min(k, |truth|) hits at its top. Source: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR
    techniques", ACM TOIS 20(4), 2002, with binary gains.
    """
    gain_K = 1 / np.log2(np.arange(2, 2 + k))
    ideal_K = np.cumsum(gain_K)
    return hits.at(k) @ gain_K / ideal_K[np.minimum(k, hits.truth_U) - 1]


def recall(hits: Hits, k: int) -> np.ndarray:
    """Recall@k of each user, [U]: hits in the first k places as a share of *all* true items, also where there are more than k.

    Source: Manning, Raghavan and Schütze, "Introduction to Information Retrieval", 2008, section 8.3.
    """
    return hits.at(k).sum(1) / hits.truth_U


def mrr(hits: Hits, k: int) -> np.ndarray:
    """Reciprocal rank of each user's first hit within k places, [U]; 0 without one. Its mean is MRR@k.

    Source: Voorhees, "The TREC-8 question answering track report", 1999.
    """
    hit_UK = hits.at(k)
    return np.where(hit_UK.any(1), 1 / (1 + hit_UK.argmax(1)), 0.0)


def coverage(lists: Lists, k: int, catalogue: int) -> float:
    """Share of a catalogue of this many items that stands in the first k places of anybody's list.

    Source: Ge, Delgado-Battenfeld and Jannach, "Beyond accuracy: evaluating recommender systems by coverage and serendipity",
    RecSys 2010 (catalogue coverage).
    """
    if catalogue < 1:
        raise ValueError(f"a catalogue of {catalogue} items")
    shown = _ragged(lists)
    return len(pc.unique(shown.values.filter(pa.array(shown.places < k)))) / catalogue


def measure(lists: Lists, truth: Lists, catalogue: int, ks: Sequence[int] = (10, 20)) -> dict[str, float]:
    """Means over users, ``ndcg@k``, ``recall@k``, ``mrr@k``, and ``coverage@k``, for each k."""
    hits = find_hits(lists, truth, max(ks))
    found: dict[str, float] = {}
    for k in ks:
        found[f"ndcg@{k}"] = float(ndcg(hits, k).mean())
        found[f"recall@{k}"] = float(recall(hits, k).mean())
        found[f"mrr@{k}"] = float(mrr(hits, k).mean())
        found[f"coverage@{k}"] = coverage(lists, k, catalogue)
    return found


def bootstrap_interval(
    values_U: np.ndarray, seed: int, level: float = 0.95, draws: int = 1000
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over users, which are drawn with replacement.

    For two recommenders judged on the same users, give the differences: the interval is then a paired one.
    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    values_U = np.asarray(values_U, np.float64)
    if values_U.ndim != 1 or not len(values_U) or not 0 < level < 1:
        raise ValueError(f"values of shape {values_U.shape}, level {level}: values of at least one user and 0 < level < 1 are needed")
    random = np.random.default_rng(seed)
    means = [values_U[random.integers(0, len(values_U), len(values_U))].mean() for _ in range(draws)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class _Ragged:
    """Lists laid end to end: the values, whose list each is in (rows) and at which place, from 0."""

    values: pa.Array
    rows: np.ndarray
    places: np.ndarray
    lengths: np.ndarray


def _ragged(lists: Lists) -> _Ragged:
    array = lists if isinstance(lists, pa.Array | pa.ChunkedArray) else pa.array(lists)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if pa.types.is_null(array.type) or (pa.types.is_list(array.type) and pa.types.is_null(array.type.value_type)):
        array = array.cast(pa.list_(pa.string()))  # only empty lists: nothing tells the type of their items
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.cumsum(lengths) - lengths
    return _Ragged(array.flatten(), rows, np.arange(len(rows)) - np.repeat(starts, lengths), lengths)
