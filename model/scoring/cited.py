"""Which of a user's events speak for a candidate: the ones that reasons name.

What the ranker knows of an event and a candidate is whether it was the same item, how near a neighbour, how many facets they
share, and how long ago it was. Events are ordered by these, the strongest first.
"""

from __future__ import annotations

import numpy as np

from model.as_of.catalogue import Catalogue
from model.as_of.neighbors import Neighbors
from model.as_of.users import UserBatch
from model.layers.interaction import EVENTS

#: Events named for one item at most.
MOST = 3
_SAME, _NEAR, _FACET, _LATE = 4.0, 2.0, 0.5, 0.1
_FADES = 0.95


def cited(users: UserBatch, row: np.ndarray, item: np.ndarray, neighbors: Neighbors, catalogue: Catalogue) -> np.ndarray:
    """For each (row, item) the places in the user's sequence of the events that speak for it most, (R, MOST), -1 padded."""
    back = np.arange(1, min(EVENTS, users.item.shape[1]) + 1)
    at = users.length[row, None] - back
    event = np.where(at >= 0, users.item[row[:, None], np.maximum(at, 0)], -1)
    facet, safe = catalogue.facet_code, np.maximum(event, 0)
    shared = np.zeros(event.shape, np.float32)
    for j in range(facet.shape[1]):
        of_event = facet[safe, j]
        shared += (of_event == facet[item, j][:, None]) & (of_event >= 0)
    late = np.float32(_FADES) ** back
    near = neighbors.weight_of(event, item[:, None])
    speaks = _SAME * (event == item[:, None]) + late * (_NEAR * near + _FACET * shared + _LATE)
    speaks = np.where(event >= 0, speaks, 0)
    best = np.argsort(-speaks, axis=1, kind="stable")[:, :MOST]
    found = np.where(np.take_along_axis(speaks, best, 1) > 0, np.take_along_axis(at, best, 1), -1)
    return np.pad(found, ((0, 0), (0, MOST - found.shape[1])), constant_values=-1)
