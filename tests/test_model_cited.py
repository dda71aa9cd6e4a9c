"""Which events a reason names: the same item first, then near neighbours, then what shares facets, then the newest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from model.as_of.neighbors import Neighbors
from model.scoring.cited import cited


@dataclass
class Users:
    """What is read of a UserBatch."""

    item: np.ndarray
    length: np.ndarray


@dataclass
class Shop:
    """What is read of a Catalogue: items 0 to 5, of two categories, the last without one."""

    facet_code = np.array([[0], [0], [1], [1], [1], [-1]], np.int32)


#: Item 4 is a neighbour of item 3.
NEAR = Neighbors(np.array([0, 0, 0, 0, 1, 1, 1], np.int32), np.array([4], np.int32), np.array([0.9], np.float32))


@pytest.mark.parametrize(
    ("events", "item", "expected"),
    [
        ([0, 1, 0, 2, 2], 0, [2, 0, 1]),  # itself twice, the newer first; then what shares its category
        ([3, 2, 0, 1, 1], 4, [0, 1, 4]),  # the neighbour, its category, the newest
        ([5, 5, 0, 1], 5, [1, 0, 3]),  # no category is shared with what has none
        ([1, -1], 0, [0, -1, -1]),  # an event of an unknown item is not named
        ([], 0, [-1, -1, -1]),
    ],
)
def test_the_events_that_speak_most_come_first(events: list[int], item: int, expected: list[int]) -> None:
    users = Users(np.array([events + [-1] * (6 - len(events))]), np.array([len(events)]))
    assert cited(users, np.array([0]), np.array([item]), NEAR, Shop()).tolist() == [expected]
