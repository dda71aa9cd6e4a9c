"""What a user's own history says of a candidate: the item itself, what is like it, and when in the day and the week it was chosen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from conf import columns as c
from model.as_of.catalogue import Catalogue
from model.as_of.item_state import DAY_US, ItemState
from model.as_of.pairs import Pairs
from model.as_of.users import UserBatch

REPEATS = tuple(c.repeat_decayed(h) for h in c.REPEAT_HALF_LIVES)
PERSONAL = (*REPEATS, "repeat_count", "repeat_value", "repeat_recency", "repeat_gap", "repeat_due", "repeat_known",
            "repeat_regular")  # fmt: skip
_FLOOR = 0.02
_HABITS = {"day": (DAY_US, DAY_US / 24), "week": (7 * DAY_US, DAY_US / 4)}
"""Cycles, and how fast the edge of the asked window blurs in each."""
_FADES_US = 28 * DAY_US
_WAYS = ("long", "short", *_HABITS, "lately", "recency", "due")
_RECENCY = 7.0
"""Days in which the recency of a facet falls to a half; what is called lately does so in one."""


def own_names(facets: tuple[str, ...]) -> tuple[str, ...]:
    """Names of ``Own.habits_of_items``, then of ``Own.of_facets``."""
    of_facets = (f"facet_{j}_{way}" for j in range(len(facets)) for way in _WAYS)
    return (*(f"repeat_{name}" for name in _HABITS), *of_facets)


def personal(users: UserBatch, item_bn: np.ndarray, state: ItemState) -> np.ndarray:
    """(B, N, len(PERSONAL)): how often and how lately the user had the candidate, and whether it is due again."""
    mine = users.repeats
    days = np.maximum(state.as_of_us - mine.last_us, 0) / DAY_US
    regular = np.isfinite(mine.gap_days)
    gap = np.where(regular, mine.gap_days, 0)
    due = np.where(regular, np.clip(np.log((days + 0.5) / (gap + 0.5)), -3, 3), 0)
    values = np.column_stack([
        _logs(mine.decayed), np.log1p(mine.count), np.log1p(np.maximum(mine.value, 0)),
        1 / (1 + days / 7), np.log1p(gap), due, np.ones(len(days)), regular,
    ]).astype(np.float32)  # fmt: skip
    return Pairs.gather(mine.user, mine.item, values, len(state.available)).look_up(item_bn)


def share(category_bn: np.ndarray, code_bc: np.ndarray, weight_bc: np.ndarray) -> np.ndarray:
    """Weight of each candidate's category in the user's list of categories."""
    out = np.zeros(category_bn.shape, np.float32)
    for j in range(code_bc.shape[1]):
        match = (category_bn == code_bc[:, j : j + 1]) & (code_bc[:, j : j + 1] >= 0)
        out += match * weight_bc[:, j : j + 1]
    return out


@dataclass(frozen=True)
class Own:
    """The newest events of the users: row and item of each, how recent it is, and its weight in each cycle (E, cycles)."""

    users: UserBatch
    as_of_us: int
    row: np.ndarray
    item: np.ndarray
    us: np.ndarray
    recent: np.ndarray
    habits: np.ndarray

    @classmethod
    def of(cls, users: UserBatch, as_of_us: int, horizon_us: int, timed: bool) -> Own:
        """What is asked is what a user will do in ``[as_of, as_of + horizon)``: an event counts for a habit as far as it
        lies in that part of the day, of the week. A horizon as long as a cycle asks nothing of it. Not
        ``timed``: no event counts for a habit.
        """
        row, at = np.nonzero(users.item >= 0)
        us = users.us[row, at]
        fades = np.exp2(-(as_of_us - us) / _FADES_US) * timed
        habits = [fades * _phase_weight(us, as_of_us, horizon_us, *cycle) for cycle in _HABITS.values()]
        return cls(users, as_of_us, row, users.item[row, at], us, 0.9 ** (users.length[row] - 1 - at), np.stack(habits, axis=1))

    def habits_of_items(self, item_bn: np.ndarray, catalogue: Catalogue) -> np.ndarray:
        """(B, N, cycles): how much of what the user had of the candidate lies in the asked part of each cycle."""
        found = Pairs.add_up(self.row, self.item, self.habits, len(catalogue))
        return replace(found, values=_logs(found.values).astype(np.float32)).look_up(item_bn)

    def of_facets(self, item_bn: np.ndarray, catalogue: Catalogue) -> np.ndarray:
        """(B, N, facets * ways): how much of the user's history shares each facet value with the candidate (in months, in the last
        events, in the asked part of each cycle), how long ago the last of it was, and whether it is due again.
        """
        mine = self.users.repeats
        long = mine.decayed[:, list(c.REPEAT_HALF_LIVES).index("90d")]
        user, item = np.concatenate([mine.user, self.row]), np.concatenate([mine.item, self.item])
        sums = np.zeros((len(item), 3 + self.habits.shape[1]))
        sums[: len(long), 0], sums[len(long) :, 1], sums[len(long) :, 2:-1] = long, self.recent, self.habits
        # Purchases of several items of a facet add up in their rates: one over the usual gap of each.
        sums[: len(long), -1] = np.where(np.isfinite(mine.gap_days), 1 / (np.nan_to_num(mine.gap_days, nan=1.0) + 0.5), 0)
        days = np.maximum(self.as_of_us - np.concatenate([mine.last_us, self.us]), 0) / DAY_US
        parts = []
        for j in range(catalogue.facet_code.shape[1]):
            code = catalogue.facet_code[:, j]
            known, codes = code[item] >= 0, int(code.max(initial=0)) + 1
            of = (user[known], code[item][known])
            found = Pairs.add_up(*of, sums[known], codes)
            last = Pairs.add_up(*of, 1 / (1 + days[known, None]), codes, np.maximum).values
            since, rate = 1 / np.maximum(last, 1e-6) - 1, found.values[:, -1:]
            due = np.where(rate > 0, np.clip(np.log((since + 0.5) * np.maximum(rate, 1e-6)), -3, 3), 0)
            # Of pairs, of which there are fewer than candidates; what is in no pair has zeros.
            told = [_logs(found.values[:, :-1]), last, 1 / (1 + since / _RECENCY), due]
            parts.append(replace(found, values=np.concatenate(told, axis=1, dtype=np.float32)).look_up(code[item_bn]))
        return np.concatenate(parts, axis=2)


def _phase_weight(us: np.ndarray, as_of_us: int, horizon_us: int, cycle_us: int, edge_us: float) -> np.ndarray:
    """1 where the event's place in the cycle lies in the asked window; halves with each ``edge_us`` outside of it."""
    place = (us - as_of_us) % cycle_us
    outside = np.where(place < horizon_us, 0, np.minimum(place - horizon_us, cycle_us - place))
    return np.exp2(-outside / edge_us)


def _logs(amount: np.ndarray) -> np.ndarray:
    return np.log(amount + _FLOOR) - np.log(_FLOOR)
