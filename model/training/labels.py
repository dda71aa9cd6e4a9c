"""Labels: what a user did in ``[anchor, anchor + horizon)``."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from model.as_of.events import Events
from model.as_of.pairs import Pairs
from model.as_of.users import UserBatch
from model.data import index_of
from model.slate.slate import seen_pairs


def anchor_labels(events: Events, users: UserBatch, anchor_us: int, horizon_us: int, items: int, repeat: bool) -> Pairs:
    """(row of ``users``, item) pairs of the window, each once; without seen items where items do not repeat."""
    user, item = events.window(anchor_us, anchor_us + horizon_us)
    row = index_of(events.users, users.user_ids.cast(pa.string()))[user].astype(np.int64)
    item = item.astype(np.int64)
    known = row >= 0
    labels = Pairs.add_up(row[known], item[known], np.ones((int(known.sum()), 1), np.float32), items)
    if repeat:
        return labels
    fresh = ~np.isin(labels.keys, seen_pairs(users, items).keys, assume_unique=True)
    return Pairs(labels.keys[fresh], labels.values[fresh], items)
