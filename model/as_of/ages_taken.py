"""f_item and f_user in one number: how often a user takes items of the age that a candidate has now.

Some chase what was just released, others wait until it has settled: the same item is worth more to a user at one age than at
another. Ages are told apart around ``_AGES_DAYS``, on a logarithmic scale; an item counts to the two nearest.
"""

from __future__ import annotations

import numpy as np

from model.as_of.item_state import DAY_US, ItemState
from model.as_of.own_history import Own

AGES_TAKEN = ("age_taken", "age_taken_lately")
_AGES_DAYS = (1 / 24, 1 / 4, 1, 3, 7, 28, 90, 365)
_PRIOR = 0.5
"""Events that every age has to begin with: of a user with few events little is said."""


def ages_taken(own: Own, item_bn: np.ndarray, state: ItemState) -> np.ndarray:
    """(B, N, len(AGES_TAKEN)) float32: log of the share of the user's events that found their items at the candidate's age; of
    all of the sequence, and of it with each event counting a tenth less than the next.
    """
    known = state.sales[own.item] > 0
    then, share = _between(_days(state, own.item[known]) - (state.as_of_us - own.us[known]) / DAY_US)
    bin_of = own.row[known] * len(_AGES_DAYS) + then
    lower, above = _between(_days(state, item_bn))
    out = np.empty((*item_bn.shape, len(AGES_TAKEN)), np.float32)
    size = len(item_bn) * len(_AGES_DAYS)
    for j, weight in enumerate((np.ones(len(then)), own.recent[known])):
        events = np.bincount(bin_of, weight * (1 - share), size) + np.bincount(bin_of + 1, weight * share, size)
        many = events.reshape(len(item_bn), -1) + _PRIOR
        log = np.log(many / many.sum(axis=1, keepdims=True))
        out[..., j] = (1 - above) * np.take_along_axis(log, lower, 1) + above * np.take_along_axis(log, lower + 1, 1)
    return out


def _days(state: ItemState, item: np.ndarray) -> np.ndarray:
    """Ages of items at as_of."""
    return np.expm1(state.column("item_age_days")[item].astype(np.float64))


def _between(days: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The age of ``_AGES_DAYS`` below each, and how far each is on its way to the next."""
    last = len(_AGES_DAYS) - 1
    place = np.interp(np.log(np.maximum(days, 1e-6)), np.log(_AGES_DAYS), np.arange(last + 1))
    lower = np.minimum(place.astype(np.int64), last - 1)
    return lower, place - lower
