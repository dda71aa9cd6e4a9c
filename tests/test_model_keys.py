"""Keys: whole numbers whose order is that of scores, ties by item."""

from __future__ import annotations

import numpy as np
import pytest

from model.as_of.keys import NOTHING, best, by_row, items, keys, scores


@pytest.mark.parametrize("score", [0.0, -0.0, 1e-30, -1e-30, 3.5, -3.5, 3e38, -3e38])
def test_a_key_keeps_the_score_and_the_item(score: float) -> None:
    key = keys(np.float32([score]), np.array([7]))
    assert scores(key)[0] == np.float32(score) and items(key).tolist() == [7]


def test_keys_rise_with_the_score_and_fall_with_the_item() -> None:
    key = keys(np.float32([-3e38, -1.5, -1e-30, -0.0, 0.0, 1e-30, 1.5, 3e38]), np.zeros(8, np.int64))
    assert (np.diff(key) >= 0).all() and key[3] == key[4]
    one, other = keys(np.float32([1, 1]), np.array([4, 5]))
    assert other < one


def test_nothing_is_below_every_score() -> None:
    assert keys(np.float32([-np.inf]), np.array([2**32 - 1]))[0] > NOTHING
    assert items(np.array([NOTHING])).tolist() == [-1] and scores(np.array([NOTHING])).tolist() == [-np.inf]


@pytest.mark.parametrize("most", [0, 1, 3, 7, 20])
def test_the_best_of_a_row_come_first(most: int) -> None:
    key = np.random.default_rng(0).integers(-50, 50, (6, 7))
    assert best(key, most).tolist() == (-np.sort(-key, axis=1))[:, :most].tolist()


def test_rows_of_any_length_become_a_matrix() -> None:
    got = by_row(np.array([0, 0, 2]), np.array([5, 6, 7]), 4, least=1)
    assert got.tolist() == [[5, 6], [NOTHING, NOTHING], [7, NOTHING], [NOTHING, NOTHING]]
    assert by_row(np.zeros(0, int), np.zeros(0, int), 2, least=1).shape == (2, 1)
