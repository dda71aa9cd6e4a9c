"""Rules about whole lists, against the plain way of keeping them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from model.scoring.rules import explored, first, pinned_first, taken


def plain(order: list[int], item: list[int], most: int, category: list[int], cap: int) -> list[int]:
    out, had = [], {}
    for place in order:
        if item[place] < 0:
            continue
        kind = category[item[place]]
        had[kind] = had.get(kind, 0) + 1
        if kind < 0 or had[kind] <= cap:
            out.append(place)
    return (out[:most] + [-1] * most)[: min(most, len(order))]


@limits(max_examples=150, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 12))
def test_of_a_category_no_more_than_the_cap_stand_and_the_list_closes_up(seed: int, cap: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    category = rng.integers(-1, 3, 30)
    item = np.array([np.where(rng.random(10) < 0.2, -1, rng.permutation(30)[:10]) for _ in range(3)])
    order = np.array([rng.permutation(10) for _ in range(3)])
    got = first(order, item, most, category, cap)
    assert got.tolist() == [
        plain(o, i, most, category.tolist(), cap) for o, i in zip(order.tolist(), item.tolist(), strict=True)
    ]


def test_without_a_cap_the_best_are_listed() -> None:
    assert first(np.array([[2, 0, 1]]), np.array([[5, 6, 7]]), 2, np.zeros(9, int), None).tolist() == [[2, 0]]


def test_values_follow_their_places() -> None:
    assert taken(np.array([[5, 6, 7]]), np.array([[2, -1]]), -1).tolist() == [[7, -1]]


def test_the_best_pinned_items_stand_first_and_nothing_else_moves() -> None:
    item = np.array([[7, 3, 9, 5, -1], [1, 2, 4, 6, 8]])
    order = np.array([[2, 0, 3, 1, 4], [0, 1, 2, 3, 4]])
    assert pinned_first(order, item, np.array([3, 5]), 1).tolist() == [[3, 2, 0, 1, 4], [0, 1, 2, 3, 4]]
    assert pinned_first(order, item, np.array([3, 5]), 2).tolist() == [[3, 1, 2, 0, 4], [0, 1, 2, 3, 4]]


@limits(max_examples=150, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8), st.data())
def test_the_last_places_are_those_of_the_least_draw_in_their_order(seed: int, most: int, data: st.DataObject) -> None:
    places = data.draw(st.integers(0, most))
    rng = np.random.default_rng(seed)
    there = rng.integers(0, 13)
    order = np.append(rng.permutation(12)[:there], np.full(12 - there, -1))
    draw = rng.integers(0, 20, 12).astype(np.uint64)
    fixed, rest = order[: most - places].tolist(), [int(p) for p in order[most - places :] if p >= 0]
    drawn = sorted(rest, key=lambda p: int(draw[p]))[:places]
    expected = fixed + [p for p in rest if p in drawn]
    found = explored(order[None], draw[None], most, places)[0].tolist()
    assert found == expected + [-1] * (most - len(expected))
