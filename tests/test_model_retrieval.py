"""The best of the whole catalogue: exactly those of brute force, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from model.as_of.pairs import Pairs
from model.slate import retrieval
from model.slate.retrieval import top_of_catalogue


def pairs(rng: np.random.Generator, users: int, items: int, share: float, value: float) -> Pairs:
    user, item = np.nonzero(rng.random((users, items)) < share)
    return Pairs.gather(user, item, np.full((len(user), 1), value, np.float32), items)


def brute(x: np.ndarray, y: np.ndarray, bias: np.ndarray, extra: Pairs, barred: Pairs, most: int) -> np.ndarray:
    score = x.astype(np.float64) @ y.T.astype(np.float64) + bias
    score[extra.user, extra.item] += extra.values[:, 0]
    score[barred.user, barred.item] = -np.inf
    order = np.lexsort((np.broadcast_to(np.arange(len(y)), score.shape), -score), axis=1)[:, :most]
    return np.where(np.isfinite(np.take_along_axis(score, order, 1)), order, -1)


@pytest.mark.parametrize("where", [None, torch.device("cpu")])
@limits(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), block=st.integers(1, 40), most=st.integers(1, 25))
def test_the_top_of_the_catalogue_is_that_of_brute_force(
    monkeypatch: pytest.MonkeyPatch, where: torch.device | None, seed: int, block: int, most: int
) -> None:
    """Small whole numbers, so that many scores are equal and none is rounded. The accelerator's way is tried on the processor."""
    monkeypatch.setattr(retrieval, "accelerator", lambda: where)
    rng = np.random.default_rng(seed)
    users, items, width = 4, int(rng.integers(1, 60)), 2
    x, y = (rng.integers(-2, 3, (n, width)).astype(np.float32) for n in (users, items))
    bias = np.where(rng.random(items) < 0.3, -np.inf, rng.integers(-1, 2, items)).astype(np.float32)
    extra, barred = pairs(rng, users, items, 0.1, 3.0), pairs(rng, users, items, 0.3, 1.0)
    got = top_of_catalogue(*map(torch.from_numpy, (x, y, bias)), extra, barred, most, block)
    assert got.tolist() == brute(x, y, bias, extra, barred, min(most, items)).tolist()


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the processor's products: a GPU's round by the shape of a block."""
    monkeypatch.setattr(retrieval, "accelerator", lambda: None)
    rng = np.random.default_rng(1)
    x, y = (torch.from_numpy(rng.normal(size=(n, 16)).astype(np.float32)) for n in (50, 5_000))
    nothing = torch.zeros(5_000)
    whole = (x @ y.T).topk(100, dim=1).indices.numpy()
    for block in (5_000, 700, 128):
        assert (top_of_catalogue(x, y, nothing, None, None, 100, block) == whole).all()


def test_a_catalogue_sorted_from_worst_to_best_is_no_exception() -> None:
    x, y = torch.ones(3, 1), torch.arange(2_000.0)[:, None]
    got = top_of_catalogue(x, y, torch.zeros(2_000), None, None, 5, 64)
    assert got.tolist() == [[1999, 1998, 1997, 1996, 1995]] * 3


def test_of_equals_the_first_items_are_kept() -> None:
    x, y = torch.ones(1, 1), torch.zeros(300, 1)
    assert top_of_catalogue(x, y, torch.zeros(300), None, None, 4, 100).tolist() == [[0, 1, 2, 3]]


def test_where_nothing_is_left_there_is_nothing() -> None:
    x, y = torch.ones(2, 1), torch.ones(3, 1)
    assert top_of_catalogue(x, y, torch.full((3,), -torch.inf), None, None, 2).tolist() == [[-1, -1]] * 2
    assert top_of_catalogue(x, y[:0], torch.zeros(0), None, None, 2).shape == (2, 0)
    assert top_of_catalogue(x[:0], y, torch.zeros(3), None, None, 2).shape == (0, 2)
