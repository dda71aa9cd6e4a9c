"""Whoever has no history is shown the ranking that newcomers chose from, as far as a run may know it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from conf import columns as c
from model.as_of.events import Events
from model.as_of.item_state import DAY_US, FEATURES, ItemState
from model.as_of.pairs import Pairs
from model.slate import newcomers
from model.slate.newcomers import FUSED, RANKINGS, RELEASED, best_ranking, judged, ranking

ITEMS, ANCHOR, USERS = 40, 100 * DAY_US, 200
#: Items 0 to 9 lead at up to six hours, 10 to 19 at longer half-lives and fused, 20 to 29 are the newest.
HOT, LASTING, NEW = (np.arange(at, at + 10) for at in (0, 10, 20))
SHARED = {f"trending_{h}": HOT if h in ("1h", "6h") else LASTING for h in c.ITEM_HALF_LIVES} | {"released": NEW}
STATE = ItemState(
    ANCHOR, np.ones(ITEMS, bool), np.zeros((ITEMS, len(FEATURES)), np.float32), np.zeros((0, 0), np.int16),
    np.zeros((0, 0), np.int16), np.zeros(ITEMS, np.float32),
)  # fmt: skip


def events(rows: list[tuple[int, int, int]], late_us: int = 0) -> Events:
    """(user, item, microseconds after the anchor); known ``late_us`` after they happened."""
    rows = sorted(rows)
    user, item, after = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    us = ANCHOR + after
    kind, value = np.zeros(len(rows), np.int8), np.zeros(len(rows), np.float32)
    names = pa.array([f"u{n:03d}" for n in range(USERS)])
    return Events(names, user.astype(np.int32), item.astype(np.int32), us, kind, value, us + late_us)


def choosing(items: np.ndarray, users: range, after: int = 1) -> list[tuple[int, int, int]]:
    return [(user, int(items[user % 3]), after + user) for user in users]


@pytest.mark.parametrize(("wanted", "name"), [(HOT, "trending_1h"), (LASTING, FUSED), (NEW, RELEASED)])
def test_newcomers_are_shown_what_newcomers_chose(wanted: np.ndarray, name: str) -> None:
    chosen, scores = best_ranking([(STATE, SHARED)], events(choosing(wanted, range(60))), DAY_US)
    assert chosen == name and scores[name] > 0.5
    assert set(scores) == set(RANKINGS)


def test_whoever_has_a_history_has_no_say_where_newcomers_are_enough() -> None:
    known = [(user, 39, -DAY_US) for user in range(60, USERS)]
    log = events(known + choosing(LASTING, range(60, USERS)) + choosing(NEW, range(60)))
    assert best_ranking([(STATE, SHARED)], log, DAY_US)[0] == RELEASED


def test_everyone_has_where_they_are_few() -> None:
    known = [(user, 39, -DAY_US) for user in range(60, USERS)]
    log = events(known + choosing(LASTING, range(60, USERS)) + choosing(NEW, range(newcomers._ENOUGH - 1)))
    assert best_ranking([(STATE, SHARED)], log, DAY_US)[0] == FUSED


def test_what_happens_after_the_window_has_no_say() -> None:
    later = choosing(NEW, range(USERS), after=DAY_US)
    log = events(choosing(LASTING, range(60)) + later)
    assert best_ranking([(STATE, SHARED)], log, DAY_US) == best_ranking(
        [(STATE, SHARED)], events(choosing(LASTING, range(60))), DAY_US
    )


def test_a_history_that_was_not_known_yet_makes_nobody_known() -> None:
    rows = (
        [(user, 39, -DAY_US) for user in range(60, USERS)]
        + choosing(LASTING, range(60, USERS))
        + choosing(NEW, range(60))
    )
    assert best_ranking([(STATE, SHARED)], events(rows), DAY_US)[0] == RELEASED
    assert best_ranking([(STATE, SHARED)], events(rows, late_us=2 * DAY_US), DAY_US)[0] == FUSED


def test_ndcg_is_that_of_the_metric() -> None:
    truth = Pairs.gather(np.array([3, 3, 5]), np.array([1, 7, 30]), np.ones((3, 1)), ITEMS)
    found = judged({"hot": HOT}, truth, np.array([3, 5]))["hot"]
    gain = [1 / np.log2(place + 2) for place in range(10)]
    assert found == pytest.approx(((gain[1] + gain[7]) / (gain[0] + gain[1]) + 0) / 2)


def test_a_ranking_is_filled_up_with_what_sold_in_the_month() -> None:
    item, score = ranking(RELEASED, SHARED, STATE, 15)
    assert item[:10].tolist() == NEW.tolist() and len(set(item.tolist())) == 15
    assert (np.diff(score) <= 0).all()


def test_of_equals_the_first_is_chosen() -> None:
    same = dict.fromkeys(SHARED, HOT)
    assert best_ranking([(STATE, same)], events(choosing(HOT, range(60))), DAY_US)[0] == FUSED
