"""Sparse values of (user row, item) pairs, looked up for whole slates at once.

A pair is one int64 key, ``user * items + item``; keys are kept sorted, so that a lookup is a binary search.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.as_of.keys import best_by_row, items, keys

_TABLE = 1 << 20
"""Up to so many places a table of all pairs is made to look them up: quicker than a search."""


@dataclass(frozen=True)
class Pairs:
    """Sorted unique keys and their values, (pairs, channels)."""

    keys: np.ndarray
    values: np.ndarray
    items: int

    @classmethod
    def gather(cls, user: np.ndarray, item: np.ndarray, values: np.ndarray, items: int) -> Pairs:
        """Pairs as given; each may occur once."""
        keys = user.astype(np.int64) * items + item
        order = np.argsort(keys, kind="stable")
        return cls(keys[order], values[order], items)

    @classmethod
    def add_up(cls, user: np.ndarray, item: np.ndarray, values: np.ndarray, items: int, how: np.ufunc = np.add) -> Pairs:
        """Pairs that may occur many times; their values are added (or else put together by ``how``)."""
        keys = user.astype(np.int64) * items + item
        order = np.argsort(keys, kind="stable")
        keys, values = keys[order], values[order]
        first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.zeros(0, np.int64)
        sums = how.reduceat(values, first, axis=0) if len(keys) else values
        return cls(keys[first], sums, items)

    @property
    def user(self) -> np.ndarray:
        """User row of each pair."""
        return self.keys // self.items

    @property
    def item(self) -> np.ndarray:
        """Item of each pair."""
        return self.keys % self.items

    def find(self, item_bn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position (0 where absent) and presence of pair (row b, item_bn[b, n]); a negative item is absent."""
        want = np.arange(len(item_bn), dtype=np.int64)[:, None] * self.items + item_bn
        if not len(self.keys):
            return np.zeros(item_bn.shape, np.int64), np.zeros(item_bn.shape, bool)
        if len(item_bn) * self.items <= _TABLE:
            place = np.zeros(len(item_bn) * self.items, np.int64)
            place[self.keys] = np.arange(len(self.keys))
            at = place[np.maximum(want, 0)]
        else:
            at = np.minimum(np.searchsorted(self.keys, want.ravel()), len(self.keys) - 1).reshape(item_bn.shape)
        found = (self.keys[at] == want) & (item_bn >= 0)
        return np.where(found, at, 0), found

    def look_up(self, item_bn: np.ndarray) -> np.ndarray:
        """Values of pairs (row b, item_bn[b, n]) as (B, N, channels); zeros where absent."""
        at, found = self.find(item_bn)
        if not len(self.keys):
            return np.zeros((*item_bn.shape, self.values.shape[1]), self.values.dtype)
        return self.values[at] * found[..., None]

    def top(self, channel: int, users: int, most: int) -> np.ndarray:
        """Each user's ``most`` items with the largest values, ties by item, as (users, most); -1 padded."""
        key = keys(self.values[:, channel].astype(np.float32), self.item)
        return items(best_by_row(self.user, key, users, most))
