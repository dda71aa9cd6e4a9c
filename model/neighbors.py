"""Neighbours of what a user chose: the ``item_neighbors`` table as CSR, summed over a user's events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from conf import columns as c
from model.catalogue import Catalogue
from model.data import index_of
from model.item_state import DAY_US
from model.pairs import Pairs
from model.users import UserBatch

#: Channels of ``neighbor_scores``: by order (each earlier event counts 0.9 of the next) and by age (half-life 28 days).
ORDER, AGE = 0, 1
_ORDER_DECAY = 0.9
_AGE_DAYS = 28.0
_FLOOR = 0.02
"""An old event still counts a little."""


@dataclass(frozen=True)
class Neighbors:
    """``offsets`` (items + 1,) into the aligned ``item`` and ``weight``."""

    offsets: np.ndarray
    item: np.ndarray
    weight: np.ndarray


def build_neighbors(table: pa.Table, catalogue: Catalogue) -> Neighbors:
    """Arrange ``item_neighbors`` rows by the catalogue's order; rows with an item outside it are left out."""
    left = index_of(table[c.ITEM_ID], catalogue.item_ids)
    right = index_of(table[c.NEIGHBOR_ID], catalogue.item_ids)
    keep = np.flatnonzero((left >= 0) & (right >= 0))
    keep = keep[np.lexsort((right[keep], left[keep]))]
    return Neighbors(
        offsets=np.searchsorted(left[keep], np.arange(len(catalogue) + 1)).astype(np.int64),
        item=right[keep],
        weight=table["neighbor_weight"].to_numpy()[keep].astype(np.float32),
    )


def neighbor_scores(users: UserBatch, neighbors: Neighbors, as_of_us: int, items: int, events: int) -> Pairs:
    """Weights of the neighbours of each user's last ``events`` events, summed in the two channels."""
    back = users.length[:, None] - 1 - np.arange(users.item.shape[1])
    take = (back >= 0) & (back < events) & (users.item >= 0)
    row, _ = np.nonzero(take)
    source = users.item[take].astype(np.int64)
    age = (as_of_us - users.us[take]) / DAY_US
    weight = np.stack([_ORDER_DECAY ** back[take], np.exp2(-age / _AGE_DAYS) + _FLOOR], axis=1).astype(np.float32)
    counts = neighbors.offsets[source + 1] - neighbors.offsets[source]
    rep = np.repeat(np.arange(len(source)), counts)
    place = np.arange(len(rep)) - np.repeat(np.cumsum(counts) - counts, counts) + neighbors.offsets[source][rep]
    values = weight[rep] * neighbors.weight[place][:, None]
    return Pairs.add_up(row[rep], neighbors.item[place], values, items)
