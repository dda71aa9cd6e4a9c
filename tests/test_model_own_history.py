"""Habits of the day and the week: what lies in the asked part of a cycle counts, the rest fades with its distance."""

from __future__ import annotations

from math import log
from types import SimpleNamespace

import numpy as np
import pytest

from model.as_of.item_state import DAY_US
from model.as_of.own_history import Own, own_names

HOUR_US = DAY_US // 24
AS_OF = 20_000 * DAY_US + 3 * HOUR_US


def own(events: list[tuple[int, float]], horizon_us: int, timed: bool = True) -> Own:
    """One user with events (item, days before as_of), oldest first."""
    item = np.array([[i for i, _ in events]])
    us = np.array([[AS_OF - round(days * DAY_US) for _, days in events]])
    return Own.of(SimpleNamespace(item=item, us=us, length=np.array([len(events)])), AS_OF, horizon_us, timed)


def said(events: list[tuple[int, float]], horizon_us: int, timed: bool = True) -> np.ndarray:
    """(items, (day, week)) of items 0 to 3."""
    found = own(events, horizon_us, timed).habits_of_items(np.arange(4)[None], range(4))[0]
    return np.exp(found) * 0.02 - 0.02


def expected(days: float, horizon: float) -> tuple[float, float]:
    """The weights in plain Python: distance of the event's place in the cycle from the asked window, in halvings."""

    def weight(cycle: float, edge: float) -> float:
        place = -days % cycle
        outside = 0.0 if place < horizon else min(place - horizon, cycle - place)
        return 0.5 ** (days / 28) * 0.5 ** (outside / edge)

    return weight(1, 1 / 24), weight(7, 1 / 4)


@pytest.mark.parametrize("horizon", [1 / 24, 0.5, 1, 7])
def test_each_event_counts_as_far_as_its_place_in_the_cycle_is_asked(horizon: float) -> None:
    events = [(0, 13.4), (1, 7.0), (2, 6.98), (3, 2.51)]
    found = said(events, round(horizon * DAY_US))
    np.testing.assert_allclose(found, [expected(days, horizon) for _, days in events], atol=2e-6)


def test_a_weekly_habit_is_due_on_its_day_and_a_long_horizon_asks_for_none() -> None:
    found = said([(0, 13.5), (1, 9.5), (0, 6.5), (1, 2.5)], DAY_US)
    assert found[0, 1] > 10 * found[1, 1]
    week = said([(0, 6.5), (1, 2.5)], 7 * DAY_US)
    np.testing.assert_allclose(week[:2, 1], [0.5 ** (6.5 / 28), 0.5 ** (2.5 / 28)], atol=2e-6)


def test_events_of_one_item_and_of_its_facet_add_up() -> None:
    events = [(0, 8.0), (1, 7.0), (0, 7.0)]
    catalogue = SimpleNamespace(facet_code=np.array([[5], [5], [-1], [2]]))
    mine = own(events, DAY_US)
    # One item of the facet was last had ten days ago and is had every four days; another one every four too.
    mine.users.repeats = SimpleNamespace(
        user=np.zeros(2, int), item=np.array([0, 1]), decayed=np.zeros((2, 5)), gap_days=np.array([3.5, 3.5]),
        last_us=np.array([AS_OF - 10 * DAY_US] * 2),
    )  # fmt: skip
    names = own_names(("category",))
    found = mine.of_facets(np.array([[0, 3]]), catalogue)[0]
    assert len(names) == 2 + found.shape[1]
    since, due = found[0, names.index("facet_0_lately") - 2], found[0, names.index("facet_0_due") - 2]
    assert 1 / since - 1 == pytest.approx(7, rel=1e-5), "the newest of all"
    assert due == pytest.approx(log(7.5 * (1 / 4 + 1 / 4)), rel=1e-5)
    week = found[:, names.index("facet_0_week") - 2]
    assert not found[1].any()
    total = sum(expected(days, 1)[1] for _, days in events)
    assert week[0] == pytest.approx(log(total + 0.02) - log(0.02), abs=1e-5)


def test_without_time_no_event_counts_for_a_habit() -> None:
    assert not said([(0, 7.0)], DAY_US, timed=False).any()
