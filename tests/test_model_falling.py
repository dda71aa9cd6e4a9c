"""Retrieval by falling length: the top of the whole catalogue, though most of it is not looked at."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from model.as_of.keys import keys
from model.as_of.pairs import Pairs
from model.slate import falling, retrieval
from model.slate.falling import Falling, top_by_length


def brute(x: np.ndarray, y: np.ndarray, able: np.ndarray, barred: Pairs, most: int) -> list[list[int]]:
    score = np.where(able, x.astype(np.float64) @ y.T.astype(np.float64), -np.inf)
    score[barred.user, barred.item] = -np.inf
    score[~x.any(axis=1)] = -np.inf
    order = np.lexsort((np.broadcast_to(np.arange(len(y)), score.shape), -score), axis=1)[:, :most]
    found = np.where(np.isfinite(np.take_along_axis(score, order, 1)), order, -1)
    return np.pad(found, ((0, 0), (0, max(most - found.shape[1], 0))), constant_values=-1).tolist()


@pytest.mark.parametrize("where", [None, torch.device("cpu")])
@limits(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), block=st.integers(1, 30), most=st.integers(0, 20))
def test_the_top_is_that_of_brute_force(monkeypatch: pytest.MonkeyPatch, where: torch.device | None, seed: int, block: int, most: int) -> None:
    """Directions along an axis and whole lengths: many scores are equal, none is rounded, many are zero. The accelerator's way, too."""
    monkeypatch.setattr(falling, "accelerator", lambda: where)
    monkeypatch.setattr(retrieval, "accelerator", lambda: where)
    rng = np.random.default_rng(seed)
    users, items = 5, int(rng.integers(1, 60))
    x = np.eye(3, dtype=np.float32)[rng.integers(0, 3, users)] * rng.choice([-1, 0, 1], (users, 1)).astype(np.float32)
    y = rng.integers(-2, 3, (items, 3)).astype(np.float32)
    able = rng.random(items) < 0.7
    user, item = np.nonzero(rng.random((users, items)) < 0.2)
    barred = Pairs.gather(user, item, np.ones((len(user), 1), np.float32), items)
    got = top_by_length(torch.from_numpy(x), torch.from_numpy(y), Falling.of(y, able), barred, most, block)
    assert got.tolist() == brute(x, y, able, barred, most)


@pytest.mark.parametrize("barred", [False, True])
def test_most_of_the_catalogue_is_not_looked_at(barred: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(5_000, 8)).astype(np.float32) / np.arange(1, 5_001, dtype=np.float32)[:, None]
    x = rng.normal(size=(20, 8)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    none = Pairs(np.zeros(0, np.int64), np.zeros((0, 1), np.float32), 5_000)
    pairs = Pairs.gather(np.arange(20), np.arange(20), np.ones((20, 1), np.float32), 5_000) if barred else none
    looks = []
    monkeypatch.setattr(falling, "keys", lambda score, item: looks.append(len(score)) or keys(score, item))
    got = falling.top_by_length(torch.from_numpy(x), torch.from_numpy(y), Falling.of(y, np.ones(5_000, bool)), pairs, 5, 100)
    assert got.tolist() == brute(x, y, np.ones(5_000, bool), pairs, 5)
    assert len(looks) < 10  # of 50 blocks
