"""The list of whoever has no history: the ranking of the whole catalogue that served newcomers best at the training anchors.

What a stranger wants depends on the log: what sells at this hour where links are shared, what has sold all month where films
are rated. So each ranking that needs no user is tried on what those whose first event lies in an anchor's window did there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from conf import columns as c
from model.as_of.events import Events
from model.as_of.item_state import ItemState
from model.as_of.pairs import Pairs

FUSED, RELEASED = "fused", "released"
#: Rankings, the first of equals is chosen.
RANKINGS = (FUSED, *(f"trending_{h}" for h in c.ITEM_HALF_LIVES), RELEASED)
_FUSED_FROM = ("trending_6h", "trending_1d", "trending_3d", "trending_7d", "trending_28d")
_ENOUGH = 50
"""With fewer newcomers than this, a ranking is judged by everyone: their choices tell more than chance."""
_K = 10
_DISCOUNT = 1 / np.log2(np.arange(2, _K + 2))


def ranking(name: str, shared: dict[str, np.ndarray], state: ItemState, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The first ``most`` available items of a ranking, and scores that fall with them; what it lacks, by sales of 28 days."""
    if name == FUSED:
        # What leads several lists at once: reciprocal rank fusion (Cormack 2009).
        votes: dict[int, float] = {}
        for one in _FUSED_FROM:
            for place, item in enumerate(shared[one].tolist()):
                votes[item] = votes.get(item, 0.0) + 1 / (10 + place)
        votes = dict(sorted(votes.items(), key=lambda v: (-round(v[1], 4), v[0])))
    else:
        votes = {item: 1 / (1 + place) for place, item in enumerate(shared[name].tolist())}
    if len(votes) < most:
        able = np.flatnonzero(state.available)
        for item in able[np.argsort(-state.column(c.item_decayed("28d"))[able], kind="stable")][:most].tolist():
            votes.setdefault(item, 0.0)
    best = list(votes.items())[:most]
    return np.array([i for i, _ in best], np.int64), np.array([round(v, 4) for _, v in best])


def judged(rankings: dict[str, np.ndarray], truth: Pairs, users: np.ndarray) -> dict[str, float]:
    """NDCG@10 of each ranking over the rows ``users`` of ``truth`` (user, item chosen)."""
    mine = np.isin(truth.user, users)
    row, item = np.searchsorted(users, truth.user[mine]), truth.item[mine]
    ideal = np.cumsum(_DISCOUNT)[np.minimum(np.bincount(row, minlength=len(users)), _K) - 1]
    found = {}
    for name, listed in rankings.items():
        gain = np.zeros(truth.items)
        gain[listed[:_K]] = _DISCOUNT[: len(listed[:_K])]
        found[name] = float((np.bincount(row, weights=gain[item], minlength=len(users)) / ideal).mean())
    return found


def best_ranking(
    anchors: Sequence[tuple[ItemState, dict[str, np.ndarray]]], events: Events, horizon_us: int
) -> tuple[str, dict[str, float]]:
    """The name of the ranking to serve, and the mean NDCG@10 of each over the users of all ``anchors`` (state, shared lists).

    ``events`` are those visible at the training's as_of, which no anchor's window passes.
    """
    sums, judges = dict.fromkeys(RANKINGS, 0.0), 0
    windows = [_window(events, state, horizon_us) for state, _ in anchors]
    new_only = sum(len(new) for _, new, _ in windows) >= _ENOUGH
    for (state, shared), (truth, new, everyone) in zip(anchors, windows, strict=True):
        users = new if new_only else everyone
        if len(users):
            lists = {name: ranking(name, shared, state, _K)[0] for name in RANKINGS}
            for name, value in judged(lists, truth, users).items():
                sums[name] += value * len(users)
            judges += len(users)
    scores = {name: round(total / max(judges, 1), 6) for name, total in sums.items()}
    return max(RANKINGS, key=lambda name: scores[name]), scores


def _window(events: Events, state: ItemState, horizon_us: int) -> tuple[Pairs, np.ndarray, np.ndarray]:
    """What was chosen in the window, by whom for the first time, and by whom at all."""
    anchor = state.as_of_us
    user, item = events.window(anchor, anchor + horizon_us)
    truth = Pairs.add_up(user, item.astype(np.int64), np.ones((len(user), 1), np.float32), len(state.available))
    everyone = np.unique(truth.user)
    return truth, np.setdiff1d(everyone, events.seen_at(anchor).user), everyone
