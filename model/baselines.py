"""The lists anybody could make without a model, from the feature tables at one as_of: what is popular now, what one keeps taking.

Both decay exponentially: an event of age a counts 0.5 ** (a / half-life). They are candidate sources, baselines, and the bar: on
real logs they beat most trained recommenders. Shapes: U users, K places. Ties are broken down to the item id, so the same
tables give the same lists.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conf import columns as c

_BLOCK = 1024  # users at a time where each has items of their own to leave out; bounds memory


def popularity_lists(
    item_temporal: pa.Table, users: pa.Array, half_life: str, k: int, seen: pa.Table | None = None
) -> pa.Array:
    """The k available items with the largest ``item_decayed_<half_life>`` for each user, without those the user has ``seen``.

    ``seen`` (user_id, item_id) is for domains where items do not repeat. Returns one list of item ids a user, aligned with
    ``users``, best first; shorter than k only where the catalogue is.
    Source: the decayed-popularity baseline of Ji et al., "A re-visit of the popularity baseline in recommender systems",
    SIGIR 2020.
    """
    popular = _by_popularity(item_temporal, half_life)
    nobody = np.zeros(0, np.int64)
    rows, places = (nobody, nobody) if seen is None else _located(seen, users, popular)[:2]
    return _item_lists(_popular_without(rows, places, len(users), len(popular), k), popular)


def personal_lists(
    user_item_repeats: pa.Table, item_temporal: pa.Table, users: pa.Array, half_life: str, tie: str, k: int
) -> pa.Array:
    """What each user took most, by ``repeat_decayed_<half_life>``; ties, and the places that are left, by popularity.

    ``tie`` is the popularity's half-life. Items that may no longer be recommended are left out. Returns one list of item ids a
    user, aligned with ``users``, best first.
    Source: personal item frequency, Hu et al., "Modeling personalized item frequency information for next-basket
    recommendation", SIGIR 2020, without its neighbours.
    """
    popular = _by_popularity(item_temporal, tie)
    rows, places, kept = _located(user_item_repeats, users, popular)
    decayed = _floats(user_item_repeats, c.repeat_decayed(half_life))[kept]
    order = np.lexsort((places, -decayed, rows))
    own_rows, own_places = rows[order], places[order]
    counts_U = np.bincount(own_rows, minlength=len(users))
    position = np.arange(len(own_rows)) - np.repeat(np.cumsum(counts_U) - counts_U, counts_U)
    own_UK = np.full((len(users), k), -1, np.int64)
    first = position < k
    own_UK[own_rows[first], position[first]] = own_places[first]
    filler_UK = _popular_without(rows, places, len(users), len(popular), k)
    shift_UK = np.arange(k) - np.minimum(counts_U, k)[:, None]
    filled_UK = np.where(shift_UK < 0, own_UK, np.take_along_axis(filler_UK, np.maximum(shift_UK, 0), axis=1))
    return _item_lists(filled_UK, popular)


def _by_popularity(item_temporal: pa.Table, half_life: str) -> pa.Array:
    """Ids of the available items, most popular first: an item's place in it is its code everywhere below."""
    if c.AS_OF_TS in item_temporal.column_names and pc.count_distinct(item_temporal[c.AS_OF_TS]).as_py() > 1:
        raise ValueError("item_temporal has rows of several as_of moments; give one partition")
    available = item_temporal.filter(item_temporal["item_available"])
    score = c.item_decayed(half_life)
    order = pc.sort_indices(available.select([score, c.ITEM_ID]), sort_keys=[(score, "descending"), (c.ITEM_ID, "ascending")])
    return available[c.ITEM_ID].combine_chunks().take(order)


def _located(pairs: pa.Table, users: pa.Array, popular: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each (user, item) pair as row in ``users`` and place in ``popular``, and which pairs are in both."""
    rows = pc.fill_null(pc.index_in(pairs[c.USER_ID], value_set=users), -1).to_numpy(zero_copy_only=False)
    places = pc.fill_null(pc.index_in(pairs[c.ITEM_ID], value_set=popular), -1).to_numpy(zero_copy_only=False)
    kept = (rows >= 0) & (places >= 0)
    return rows[kept].astype(np.int64), places[kept].astype(np.int64), kept


def _popular_without(rows: np.ndarray, places: np.ndarray, users: int, items: int, k: int) -> np.ndarray:
    """Each user's k best places that are not among the given (row, place) pairs, [U, K], -1 where there are no more."""
    out_UK = np.full((users, k), -1, np.int64)
    order = np.argsort(rows, kind="stable")
    rows, places = rows[order], places[order]
    for start in range(0, users, _BLOCK):
        stop = min(start + _BLOCK, users)
        mine = slice(*np.searchsorted(rows, [start, stop]))
        block_rows, block_places = rows[mine] - start, places[mine]
        # The k best that are left lie among the first k + (most left out by one user).
        most = int(np.bincount(block_rows, minlength=1).max())
        depth = min(items, k + most)
        free_BN = np.ones((stop - start, depth), bool)
        near = block_places < depth
        free_BN[block_rows[near], block_places[near]] = False
        position_BN = np.cumsum(free_BN, axis=1) - 1
        user, place = np.nonzero(free_BN & (position_BN < k))
        out_UK[start + user, position_BN[user, place]] = place
    return out_UK


def _floats(table: pa.Table, name: str) -> np.ndarray:
    return pc.fill_null(table[name].cast(pa.float64()), 0.0).to_numpy(zero_copy_only=False)


def _item_lists(places_UK: np.ndarray, popular: pa.Array) -> pa.Array:
    filled_UK = places_UK >= 0
    offsets = np.concatenate([[0], np.cumsum(filled_UK.sum(1))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), popular.take(pa.array(places_UK[filled_UK])))
