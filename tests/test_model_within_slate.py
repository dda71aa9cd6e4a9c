"""Standard scores and ranks within a slate: those of the slow way, whatever is padded and whatever is equal."""

from __future__ import annotations

import numpy as np
import pytest

from model.slate.within_slate import compare, standings


def compared(main: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    out = np.full((2, *main.shape), np.nan, np.float32)
    compare(main, real, out[0], out[1])
    return out[0], out[1]


def test_equals_share_a_rank() -> None:
    value = np.array([[[3.0], [7.0], [3.0], [1.0]]], np.float32)
    assert compared(value, np.ones((1, 4), bool))[1][0, :, 0].tolist() == [1 / 2, 1 / 1, 1 / 2, np.float32(1 / 4)]


def test_minus_zero_is_zero() -> None:
    value = np.array([[[0.0], [-0.0], [1.0]]], np.float32)
    assert compared(value, np.ones((1, 3), bool))[1][0, :, 0].tolist() == [1 / 2, 1 / 2, 1.0]


def test_padded_candidates_do_not_count() -> None:
    value = np.array([[[1.0], [3.0], [99.0]]], np.float32)
    standard, rank = compared(value, np.array([[True, True, False]]))
    assert standard[0, :2, 0].tolist() == [-1.0, 1.0] and rank[0, :2, 0].tolist() == [1 / 2, 1.0]


@pytest.mark.parametrize("seed", range(5))
def test_both_are_those_of_the_slow_way(seed: int) -> None:
    rng = np.random.default_rng(seed)
    users, candidates, signals = 70, 23, 4
    main = rng.integers(-3, 4, (users, candidates, signals)).astype(np.float32)
    main[..., 1] *= rng.normal(size=main.shape[:2])
    main[..., 2] *= 1e30
    real = np.arange(candidates) < rng.integers(0, candidates + 1, users)[:, None]
    standard, rank = compared(main, real)
    for b in range(users):
        value = main[b, real[b]].astype(np.float64)
        if len(value):
            greater = (value[None] > value[:, None]).sum(axis=1)
            assert rank[b, real[b]].tolist() == (1 / (1 + greater)).astype(np.float32).tolist()
            expected = np.clip((value - value.mean(axis=0)) / np.maximum(value.std(axis=0), 1e-3), -5, 5)
            np.testing.assert_allclose(standard[b, real[b]][:, :2], expected[:, :2], atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_standings_are_those_of_the_slow_way(seed: int) -> None:
    rng = np.random.default_rng(seed)
    users, candidates = 40, 17
    code = rng.integers(-1, 4, (users, candidates, 2))
    value = rng.integers(-3, 4, (users, candidates, 3)) * rng.choice([1.0, 1e30, 1e-30], (users, candidates, 3))
    real = np.arange(candidates) < rng.integers(0, candidates + 1, users)[:, None]
    want = np.zeros((users, candidates, 2, 3))
    for b, n, m in zip(*np.nonzero(real[..., None] & (code >= 0)), strict=True):
        like = real[b] & (code[b, :, m] == code[b, n, m])
        want[b, n, m] = 1 / (1 + (value[b, like].astype(np.float32) > value[b, n].astype(np.float32)).sum(axis=0))
    np.testing.assert_allclose(standings(code, value, real).reshape(want.shape), want, rtol=1e-6)


def test_only_what_shares_a_facet_stands_before_a_candidate() -> None:
    newest = standings(np.array([[[7], [7], [3], [-1]]]), np.array([[[1.0], [2.0], [0.0], [9.0]]]), np.ones((1, 4), bool))
    assert newest[0, :, 0].tolist() == [0.5, 1.0, 1.0, 0.0]
