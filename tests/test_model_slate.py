"""Slates, signals and pairs against the plain way of doing it."""

from __future__ import annotations

import numpy as np

from model.as_of.pairs import Pairs
from model.slate.slate import SOURCES, _unite


def pairs(rows: list[tuple[int, int, float]], items: int) -> Pairs:
    user, item, value = (np.array([r[k] for r in rows]) for k in range(3))
    return Pairs.add_up(user.astype(int), item.astype(int), value[:, None].astype(np.float32), items)


def test_pairs_add_up_and_are_found_by_row_and_item() -> None:
    found = pairs([(0, 2, 1.0), (1, 0, 5.0), (0, 2, 2.0)], items=3)
    assert found.look_up(np.array([[2, 0, -1], [2, 0, 0]]))[..., 0].tolist() == [[3.0, 0.0, 0.0], [0.0, 5.0, 5.0]]


def test_the_top_of_pairs_is_by_value_then_by_item() -> None:
    found = pairs([(0, 1, 2.0), (0, 4, 7.0), (0, 0, 2.0), (2, 3, 1.0)], items=5)
    assert found.top(0, users=3, most=3).tolist() == [[4, 0, 1], [-1, -1, -1], [3, -1, -1]]


def test_an_item_from_two_sources_is_in_the_slate_once_with_both_bits() -> None:
    slates = _unite(np.array([[5, 2, 5, -1]]), np.array([[1, 1, 4, 4]], np.int32))
    assert slates.item.tolist() == [[2, 5]]
    assert slates.source.tolist() == [[1, 5]]
    assert slates.from_source(SOURCES[2]).tolist() == [[False, True]]


def test_one_long_row_does_not_change_the_top_of_the_others() -> None:
    """Rows of very different length are looked at in halves: a matrix would be as wide for all as the longest."""
    rng = np.random.default_rng(0)
    items, long = 2_000_000, 60_000
    user = np.concatenate([np.zeros(long, int), np.repeat(np.arange(1, 400), 3)])
    item = np.concatenate([rng.choice(items, long, replace=False), np.tile([5, 9, 7], 399)])
    value = rng.integers(0, 50, len(user)).astype(np.float32)
    got = Pairs.gather(user, item, value[:, None], items).top(0, 400, 4)
    for row in (0, 1, 250, 399):
        mine = np.flatnonzero(user == row)
        expected = item[mine[np.lexsort((item[mine], -value[mine]))]][:4].tolist()
        assert got[row].tolist() == expected + [-1] * (4 - len(expected))
