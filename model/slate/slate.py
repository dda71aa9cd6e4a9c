"""The slate: who may be recommended to a user, gathered from several sources, each item once.

What the slate lacks no ranker finds, so the sources differ: retrieval over the whole catalogue (taste), the user's own
repeats (habit), what sells now at several half-lives (fashion), what was just released (news), neighbours of the last
events (context). One code path serves training and scoring.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conf import columns as c
from conf.settings import Slate as SlateSettings
from model.as_of.catalogue import Catalogue
from model.as_of.item_state import ItemState
from model.as_of.neighbors import AGE, ORDER, Near
from model.as_of.pairs import Pairs
from model.as_of.users import UserBatch

#: Sources in the order of their bits in ``Slates.source``.
SOURCES = ("retrieved", "repeats", "audience", "released", "next", "like", *(f"trending_{h}" for h in c.ITEM_HALF_LIVES))
#: The name of a shared list that is in every slate whole, and is no source: what the house pins (model/scoring/rules.py).
PINNED = "pinned"
_SPARE = 4
"""A shared list is this many times longer than what a user may take from it: what the user has seen is left out."""


@dataclass(frozen=True)
class Slates:
    """``item`` (B, N) catalogue positions, rising, -1 padded at the end; ``source`` (B, N) bits of SOURCES."""

    item: np.ndarray
    source: np.ndarray

    def from_source(self, name: str) -> np.ndarray:
        """Which candidates a source gave."""
        return (self.source >> SOURCES.index(name)) & 1 == 1


def seen_pairs(users: UserBatch, items: int) -> Pairs:
    """Every (user, item) the user is known to have had."""
    row, at = np.nonzero(users.item >= 0)
    user = np.concatenate([users.repeats.user, row])
    item = np.concatenate([users.repeats.item, users.item[row, at]])
    return Pairs.add_up(user, item, np.ones((len(user), 1), np.float32), items)


def shared_lists(state: ItemState, catalogue: Catalogue, settings: SlateSettings) -> dict[str, np.ndarray]:
    """The sources that do not depend on the user, best first, ties by item."""
    able = np.flatnonzero(state.available)
    lists = {}
    for half_life in c.ITEM_HALF_LIVES:
        value = state.column(c.item_decayed(half_life))[able]
        lists[f"trending_{half_life}"] = able[_best(value, settings.trending * _SPARE)]
    lists["released"] = able[_best(-state.column("item_age_days")[able], settings.released * _SPARE)]
    return lists


def _best(value: np.ndarray, most: int) -> np.ndarray:
    if not most or not len(value):
        return np.zeros(0, np.int64)
    most = min(most, len(value))
    bound = -np.partition(-value, most - 1)[most - 1]
    near = np.flatnonzero(value >= bound)
    return near[np.argsort(-value[near], kind="stable")][:most]


def build_slates(
    users: UserBatch,
    state: ItemState,
    shared: dict[str, np.ndarray],
    neighbors: Near,
    retrieved: np.ndarray,
    audience: np.ndarray,
    barred: Pairs | None,
    settings: SlateSettings,
) -> Slates:
    """Join the sources' lists into one slate a user. ``barred``: seen pairs where items do not repeat, else None."""
    n = len(users)
    lists = {"retrieved": (retrieved, retrieved.shape[1]), "audience": (audience, audience.shape[1])}
    if barred is None:
        mine = users.repeats
        pairs = Pairs.gather(mine.user, mine.item, mine.decayed, len(state.available))
        half_lives = list(c.REPEAT_HALF_LIVES)
        most = settings.repeats
        long, short = pairs.top(half_lives.index("90d"), n, most), pairs.top(half_lives.index("7d"), n, most // 3)
        lists["repeats"] = (np.concatenate([long, short], axis=1), most + most // 3)
    spare = 1 if barred is None else 2
    lists["next"] = (neighbors.top(ORDER, spare * settings.neighbors // 2), settings.neighbors // 2)
    lists["like"] = (neighbors.top(AGE, spare * settings.neighbors // 2), settings.neighbors // 2)
    for name, items in shared.items():
        most = {"released": settings.released, PINNED: len(items)}.get(name, settings.trending)
        lists[name] = (np.broadcast_to(items, (n, len(items))), most)
    parts, bits = [], []
    for name, (items, most) in lists.items():
        fit = _allowed(items, state, barred)
        fit &= np.cumsum(fit, axis=1) <= most if name != "repeats" else True
        parts.append(np.where(fit, items, -1))
        bits.append(np.full(items.shape, 0 if name == PINNED else 1 << SOURCES.index(name), np.int32))
    return _unite(np.concatenate(parts, axis=1), np.concatenate(bits, axis=1))


def _allowed(item_bn: np.ndarray, state: ItemState, barred: Pairs | None) -> np.ndarray:
    fit = (item_bn >= 0) & state.available[item_bn]
    if barred is not None:
        fit &= ~barred.find(item_bn)[1]
    return fit


def _unite(item_bm: np.ndarray, bit_bm: np.ndarray) -> Slates:
    """Sort each row by item, keep each item once and join the bits of its sources."""
    last = np.iinfo(np.int64).max
    key = np.where(item_bm < 0, last, item_bm)
    order = np.argsort(key, axis=1, kind="stable")
    key, bit = np.take_along_axis(key, order, 1), np.take_along_axis(bit_bm, order, 1)
    real = key != last
    first = real & np.concatenate([np.ones((len(key), 1), bool), key[:, 1:] != key[:, :-1]], axis=1)
    place = np.cumsum(first, axis=1) - 1
    width = max(int(first.sum(axis=1).max(initial=0)), 1)
    row = np.broadcast_to(np.arange(len(key))[:, None], key.shape)
    item = np.full((len(key), width), -1, np.int64)
    item[row[first], place[first]] = key[first]
    source = np.zeros((len(key), width), np.int32)
    np.bitwise_or.at(source, (row[real], place[real]), bit[real])
    return Slates(item, source)
