"""What goes with what: weights between items by which what a person had predicts what else they had.

EASE, the linear autoencoder without a diagonal, solved in closed form from who had what, people and not events counted (Steck,
"Embarrassingly shallow autoencoders for sparse data", WWW 2019). It knows whole histories, where ``item_neighbors`` knows what came
shortly before, and each item by itself, where the tastes of audiences know directions of many. Of the commonest items alone, and of
each the heaviest weights: both are told below with what they cost. Weights may only be used at moments at or after their own.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack
from scipy.sparse import csr_matrix

from model.as_of.events import Events
from model.as_of.pairs import Pairs

ITEMS = 2_000
"""As many of the commonest items have weights: half a second of one core weighs them; of more, little came of it."""
KEPT = 30
"""Weights kept of an item: more of them ranked no better (model/LOG.md)."""
_RIDGE = 100.0
_PEOPLE = 100_000
"""Of more users every second, third ... is asked."""


@dataclass(frozen=True)
class Ease:
    """``item`` (M,) rising positions among ``items`` of a catalogue; ``other`` (M, K) places in ``item`` that what has the row
    speaks for, and ``weight`` (M, K) float32 by how much."""

    items: int
    item: np.ndarray
    other: np.ndarray
    weight: np.ndarray

    def scores(self, had: Pairs, users: int) -> np.ndarray:
        """What all that each user had says of each of ``item``, (users, M + 1) float32; the last column, 0, is any other item's."""
        place = self._place[had.item]
        known = place < len(self.item)
        stops = np.searchsorted(had.user[known], np.arange(users + 1))
        asked = csr_matrix((np.ones(int(known.sum()), np.float32), place[known], stops), (users, len(self.item)))
        out = np.zeros((users, len(self.item) + 1), np.float32)
        out[:, :-1] = (asked @ self._weights).toarray()
        return out

    def look_up(self, scores: np.ndarray, item_bn: np.ndarray) -> np.ndarray:
        """The ``scores`` of items (B, N); 0 where there are none."""
        return np.take_along_axis(scores, np.where(item_bn >= 0, self._place[item_bn], len(self.item)), axis=1)

    def weight_of(self, had: np.ndarray, item: np.ndarray) -> np.ndarray:
        """By how much having one speaks for the other (arrays that fit each other; -1: none); 0 where nothing is known."""
        had, item = np.broadcast_arrays(had, item)
        keys, weight = self._by_pair
        if not len(keys):
            return np.zeros(had.shape, np.float32)
        row, column = self._place[had], self._place[item]
        pair = row * len(self.item) + column
        at = np.minimum(np.searchsorted(keys, pair), len(keys) - 1)
        known = (had >= 0) & (item >= 0) & (row < len(self.item)) & (column < len(self.item))
        return np.where(known & (keys[at] == pair), weight[at], np.float32(0))

    def moved(self, to: np.ndarray, items: int) -> Ease:
        """The same among ``items`` of another catalogue, where position p has become ``to[p]``; -1: it is gone."""
        at = to[self.item]
        order = np.flatnonzero(at >= 0)
        order = order[np.argsort(at[order])]
        place = np.full(len(at), -1)
        place[order] = np.arange(len(order))
        other = place[self.other[order]]
        return Ease(items, at[order], np.maximum(other, 0), np.where(other >= 0, self.weight[order], np.float32(0)))

    @functools.cached_property
    def _place(self) -> np.ndarray:
        place = np.full(self.items, len(self.item))
        place[self.item] = np.arange(len(self.item))
        return place

    @functools.cached_property
    def _by_pair(self) -> tuple[np.ndarray, np.ndarray]:
        """Rising numbers of pairs of places, and their weights."""
        weights = self._weights.copy()
        weights.sum_duplicates()
        row = np.repeat(np.arange(len(self.item)), np.diff(weights.indptr))
        return row * len(self.item) + weights.indices, weights.data

    @functools.cached_property
    def _weights(self) -> csr_matrix:
        many, kept = self.other.shape
        return csr_matrix((self.weight.ravel(), self.other.ravel(), np.arange(many + 1) * kept), (many, many))


def fit_ease(seen: Events, items: int) -> Ease:
    """The weights from what a moment has seen of a catalogue of ``items``."""
    user, item = seen.distinct(items)
    people = np.bincount(item, minlength=items)
    shared = np.count_nonzero(people > 1)  # what one person had goes with nothing
    chosen = np.sort(np.argsort(-people, kind="stable")[: min(shared, ITEMS)])
    if len(chosen) < 2:
        return Ease(items, np.zeros(0, np.int64), np.zeros((0, 0), np.int32), np.zeros((0, 0), np.float32))
    place = np.full(items, -1)
    place[chosen] = np.arange(len(chosen))
    # Numbered among those who were seen: how many came later, and where their names sort, must not choose who is asked.
    known, user = np.unique(user, return_inverse=True)
    asked = (place[item] >= 0) & (user % -(-len(known) // _PEOPLE) == 0)
    had = csr_matrix((np.ones(int(asked.sum()), np.float32), (user[asked], place[item[asked]])), (len(known), len(chosen)))
    # Double, so that its last bits, which differ with the number of threads, are rounded away: ranks within slates are made of weights.
    gram = (had.T @ had).toarray().astype(np.float64)
    gram[np.diag_indices(len(chosen))] += _RIDGE
    half, failed = lapack.dpotrf(gram, overwrite_a=True)
    if not failed:
        half, failed = lapack.dpotri(half, overwrite_c=True)  # the upper half alone
    if failed:
        raise np.linalg.LinAlgError(f"who had what of {len(chosen)} items cannot be inverted (LAPACK said {failed})")
    inverse = np.triu(half) + np.triu(half, 1).T
    weight = (-inverse / np.diag(inverse)).astype(np.float32)
    np.fill_diagonal(weight, 0)
    kept = min(KEPT, len(chosen) - 1)
    other = np.sort(np.argpartition(-np.abs(weight), kept - 1, axis=1)[:, :kept], axis=1)
    return Ease(items, chosen, other.astype(np.int32), np.take_along_axis(weight, other, axis=1))
