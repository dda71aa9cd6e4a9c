"""Ages of items that a user takes: counted by hand, and nothing said of who took nothing."""

from __future__ import annotations

from math import log
from types import SimpleNamespace

import numpy as np
import pytest

from model.as_of.ages_taken import ages_taken
from model.as_of.item_state import DAY_US
from model.as_of.own_history import Own

AS_OF = 20_000 * DAY_US
AGES = np.array([1.0, 10.0, 100.0, 0.0])
"""Days, at AS_OF; the last item is not known there."""


def state() -> SimpleNamespace:
    return SimpleNamespace(as_of_us=AS_OF, sales=np.array([5, 5, 5, 0]), column=lambda _: np.log1p(AGES))


def taken(*events: list[tuple[int, float]]) -> np.ndarray:
    """(users, items, (all, lately)) of the three items that are known; of each user the events (item, days before AS_OF), oldest first."""
    item, us = np.full((len(events), 4), -1), np.zeros((len(events), 4), np.int64)
    for row, mine in enumerate(events):
        for at, (what, days) in enumerate(mine):
            item[row, at], us[row, at] = what, AS_OF - round(days * DAY_US)
    users = SimpleNamespace(item=item, us=us, length=np.array([len(mine) for mine in events]))
    return ages_taken(Own.of(users, AS_OF, DAY_US, True), np.tile([0, 1, 2], (len(events), 1)), state())


def test_an_event_counts_at_the_age_that_its_item_had_then() -> None:
    # Items of 10 and 100 days, taken when they were one day old; ages of a day are a knot, so that nothing is shared out.
    found = taken([(1, 9.0), (2, 99.0)])[0]
    assert found[0, 0] == pytest.approx(log(2.5 / (2 + 8 * 0.5)))
    assert found[0, 1] == pytest.approx(log((1 + 0.9 + 0.5) / (1.9 + 8 * 0.5))), "the older event counts a tenth less"
    assert found[1:, 0].tolist() == [pytest.approx(log(0.5 / 6))] * 2, "nothing at the ages around ten days, nor around a hundred"


def test_who_took_nothing_that_is_known_likes_all_ages_alike() -> None:
    found = taken([], [(3, 0.5)])
    np.testing.assert_allclose(found, log(1 / 8), rtol=1e-6)


def test_others_do_not_matter() -> None:
    alone, beside = taken([(1, 9.0)]), taken([(2, 1.0)], [(1, 9.0)], [(0, 0.5)])
    np.testing.assert_array_equal(alone[0], beside[1])
