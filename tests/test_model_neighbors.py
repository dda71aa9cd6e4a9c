"""Neighbours of a user's events: summed, looked up and ranked as by plain Python."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from model.as_of.item_state import DAY_US
from model.as_of.neighbors import AGE, ORDER, Neighbors, neighbor_scores

ITEMS, NOW = 12, 100 * DAY_US


@dataclass
class Users:
    """What is read of a UserBatch."""

    length: np.ndarray
    item: np.ndarray
    us: np.ndarray

    def __len__(self) -> int:
        return len(self.length)


@pytest.fixture
def world():
    rng = np.random.default_rng(0)
    near = rng.random((ITEMS, ITEMS)) * (rng.random((ITEMS, ITEMS)) < 0.4)
    source, item = np.nonzero(near)
    offsets = np.searchsorted(source, np.arange(ITEMS + 1)).astype(np.int32)
    neighbors = Neighbors(offsets, item.astype(np.int32), near[source, item].astype(np.float32))
    length = np.array([5, 0, 3])
    real = np.arange(5) < length[:, None]
    item_bl = np.where(real, rng.integers(0, ITEMS, (3, 5)), -1)
    item_bl[0, 1] = -1  # not in the catalogue
    return near, neighbors, Users(length, item_bl, np.where(real, NOW - rng.integers(1, 50, (3, 5)) * DAY_US, 0))


def expected(near, users, events):
    out = np.zeros((3, ITEMS, 2))
    for b in range(3):
        for back in range(min(events, users.length[b])):
            at = users.length[b] - 1 - back
            if users.item[b, at] >= 0:
                age = (NOW - users.us[b, at]) / DAY_US
                out[b, :, ORDER] += near[users.item[b, at]] * 0.9**back
                out[b, :, AGE] += near[users.item[b, at]] * (2 ** (-age / 28) + 0.02)
    return out


@pytest.mark.parametrize("events", [2, 5])
def test_weights_of_neighbours_add_up_over_the_newest_events(world, events):
    near, neighbors, users = world
    found = neighbor_scores(users, neighbors, NOW, ITEMS, events).look_up(np.tile(np.r_[np.arange(ITEMS), -1], (3, 1)))
    np.testing.assert_allclose(found[:, :-1], expected(near, users, events), atol=1e-5)
    assert not found[:, -1].any() and not found[1].any()


@pytest.mark.parametrize("channel", [ORDER, AGE])
@pytest.mark.parametrize("most", [1, 3, 20])
def test_the_top_are_the_largest(world, channel, most):
    near, neighbors, users = world
    value = expected(near, users, 5)[..., channel]
    got = neighbor_scores(users, neighbors, NOW, ITEMS, 5).top(channel, most)
    for b in range(3):
        order = [i for i in np.argsort(-value[b], kind="stable") if value[b, i] > 0][:most]
        assert got[b].tolist() == order + [-1] * (most - len(order))


def test_a_single_weight_is_looked_up_where_it_lies(world):
    near, neighbors, _ = world
    item, other = np.meshgrid(np.arange(-1, ITEMS), np.arange(ITEMS), indexing="ij")
    got = neighbors.weight_of(item, other)
    assert not got[0].any()
    np.testing.assert_array_equal(got[1:], near.astype(np.float32))
    nobody = Neighbors(np.zeros(ITEMS + 1, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32))
    assert not nobody.weight_of(item, other).any()
