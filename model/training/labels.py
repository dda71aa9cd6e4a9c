"""Labels: what a user did in ``[anchor, anchor + horizon)``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from model.as_of.events import Events
from model.as_of.pairs import Pairs
from model.as_of.users import UserBatch
from model.data import index_of
from model.slate.slate import seen_pairs


def labelled_users(events: Events, anchors_us: Sequence[int], horizon_us: int, repeat: bool) -> np.ndarray:
    """How many users have a past and a label at each anchor, in their order; where items do not repeat, only a user's first of an item is one.

    The same as ``features/anchors.labelled_users``, but for items outside the catalogue.
    """
    counts = np.zeros(len(anchors_us), np.int64)
    for part in events.whole_users():
        user, item, us = events.user[part], events.item[part], events.us[part]
        born = us[np.searchsorted(user, user)]
        label = item >= 0
        if not repeat:  # the first in time, because lexsort keeps the order of what is alike
            order = np.lexsort((item, user))
            again = np.zeros(len(us), bool)
            again[order[1:]] = (user[order][1:] == user[order][:-1]) & (item[order][1:] == item[order][:-1])
            label &= ~again
        for k, anchor in enumerate(anchors_us):
            inside = user[label & (us >= anchor) & (us < anchor + horizon_us) & (born < anchor)]
            counts[k] += np.count_nonzero(np.diff(inside, prepend=-1))
    return counts


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
