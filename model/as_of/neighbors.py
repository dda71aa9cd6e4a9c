"""Neighbours of what a user chose: the ``item_neighbors`` table as CSR, summed over a user's events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix

from conf import columns as c
from model.as_of.catalogue import Catalogue
from model.as_of.item_state import DAY_US
from model.as_of.keys import best_by_row, bound, keys
from model.as_of.keys import items as items_of
from model.as_of.users import UserBatch
from model.data import index_of

#: Channels of ``neighbor_scores``: by order (each earlier event counts 0.9 of the next) and by age (half-life 28 days).
ORDER, AGE = 0, 1
_ORDER_DECAY = 0.9
_AGE_DAYS = 28.0
_FLOOR = 0.02
"""An old event still counts a little."""


@dataclass(frozen=True)
class Neighbors:
    """``offsets`` (items + 1,) into the aligned ``item`` and ``weight``; whole numbers of one width, so that they are used where they lie."""

    offsets: np.ndarray
    item: np.ndarray
    weight: np.ndarray

    def weight_of(self, item: np.ndarray, neighbor: np.ndarray) -> np.ndarray:
        """Weight of each neighbour of each item (arrays that fit each other; item -1: none); 0 where it is none."""
        item, neighbor = np.broadcast_arrays(item, neighbor)
        low = self.offsets[np.maximum(item, 0)].astype(np.int64)
        stop = np.where(item >= 0, self.offsets[item + 1], low)
        high = stop.copy()
        for _ in range(int((high - low).max(initial=0)).bit_length()):  # all at once, each within the rows of its own item
            middle = (low + high) >> 1
            below = (self.item[np.minimum(middle, len(self.item) - 1)] < neighbor) & (low < high)
            low, high = np.where(below, middle + 1, low), np.where(below, high, middle)
        at = np.minimum(low, max(len(self.item) - 1, 0))
        return np.where((low < stop) & (self.item[at] == neighbor), self.weight[at], np.float32(0)) if len(self.item) else np.zeros(item.shape, np.float32)


def build_neighbors(table: pa.Table, catalogue: Catalogue) -> Neighbors:
    """Arrange ``item_neighbors`` rows by the catalogue's order; rows with an item outside it are left out."""
    left = index_of(table[c.ITEM_ID], catalogue.item_ids)
    right = index_of(table[c.NEIGHBOR_ID], catalogue.item_ids)
    keep = np.flatnonzero((left >= 0) & (right >= 0))
    keep = keep[np.lexsort((right[keep], left[keep]))]
    whole = np.int32 if len(keep) < np.iinfo(np.int32).max else np.int64
    return Neighbors(
        offsets=np.searchsorted(left[keep], np.arange(len(catalogue) + 1)).astype(whole),
        item=right[keep].astype(whole),
        weight=table["neighbor_weight"].to_numpy()[keep].astype(np.float32),
    )


@dataclass(frozen=True)
class Near:
    """The neighbours of each user's events: rows of ``offsets`` in ``item``, in no order, and ``values`` (pairs, channels)."""

    offsets: np.ndarray
    item: np.ndarray
    values: np.ndarray
    items: int

    def top(self, channel: int, most: int) -> np.ndarray:
        """Each user's ``most`` items with the largest values, ties by item, as (users, most); -1 padded."""
        users, count = len(self.offsets) - 1, np.diff(self.offsets)
        row, _ = places = _places(count)
        value = np.full((users, max(int(count.max(initial=0)), 1)), -np.inf, np.float32)
        value[places] = self.values[:, channel]
        row, place = np.nonzero(value > bound(value, most))
        key = keys(value[row, place], self.item[self.offsets[row] + place])
        return items_of(best_by_row(row, key, users, most))

    def look_up(self, item_bn: np.ndarray) -> np.ndarray:
        """Values of items as (B, N, channels); zeros where an item, or -1, is no neighbour."""
        both = np.ascontiguousarray(self.values).view(np.complex64)[:, 0]  # a pair of values is moved as one
        spread = np.zeros(self.items + 1, np.complex64)  # the last place is that of -1
        out = np.empty(item_bn.shape, np.complex64)
        for b, wanted in enumerate(item_bn):
            mine = slice(self.offsets[b], self.offsets[b + 1])
            spread[self.item[mine]] = both[mine]
            spread.take(wanted, out=out[b], mode="wrap")
            spread[self.item[mine]] = 0
        return out.view(np.float32).reshape(*item_bn.shape, 2)


def neighbor_scores(users: UserBatch, neighbors: Neighbors, as_of_us: int, items: int, events: int) -> Near:
    """Weights of the neighbours of each user's last ``events`` events, summed in the two channels."""
    back = users.length[:, None] - 1 - np.arange(users.item.shape[1])
    take = (back >= 0) & (back < events) & (users.item >= 0)
    source = users.item[take].astype(neighbors.item.dtype)
    age = (as_of_us - users.us[take]) / DAY_US
    weight = np.stack([_ORDER_DECAY ** back[take], np.exp2(-age / _AGE_DAYS) + _FLOOR]).astype(np.float32)
    stops = np.concatenate([[0], np.cumsum(np.tile(take.sum(axis=1), 2))])
    # A row for each channel of each user, times the neighbours of each item; channels have the same neighbours in the same order.
    asked = csr_matrix((weight.ravel(), np.tile(source, 2), stops), (2 * len(users), items))
    found = asked @ csr_matrix((neighbors.weight, neighbors.item, neighbors.offsets), (items, items))
    offsets = found.indptr[: len(users) + 1]
    half = offsets[-1]
    return Near(offsets, found.indices[:half], np.stack([found.data[:half], found.data[half:]], axis=1), items)


def _places(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    row = np.repeat(np.arange(len(counts)), counts)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
