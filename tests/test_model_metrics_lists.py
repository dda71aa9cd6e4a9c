"""Metrics of what is shown rather than of what is hit: by hand, against naive formulas, and in their corners."""

from __future__ import annotations

from itertools import combinations
from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import metrics

# Of 8 active users, 4 took the first item Anna is shown and 2 the second; nobody took Ben's; Cleo is shown nothing.
TAKERS = [[4, 2, 8], [0], []]


def test_average_popularity_is_the_mean_share_of_users_who_took_an_item() -> None:
    assert metrics.average_popularity(TAKERS, 8, 2) == pytest.approx([(4 / 8 + 2 / 8) / 2, 0, np.nan], nan_ok=True)


def test_novelty_is_the_mean_surprise_in_bits_and_nobody_counts_as_one() -> None:
    assert metrics.novelty(TAKERS, 8, 3) == pytest.approx([(1 + 2 + 0) / 3, 3, np.nan], nan_ok=True)


def test_diversity_is_the_share_of_pairs_of_different_categories() -> None:
    found = metrics.diversity([["a", "a", "b", "c"], ["a", None, "b"], ["a", None], []], 3)
    assert found == pytest.approx([2 / 3, 1, np.nan, np.nan], nan_ok=True)


def test_gini_is_zero_when_all_are_shown_alike_and_near_one_when_one_takes_all() -> None:
    assert metrics.gini([7], [4], 4) == pytest.approx(0)
    assert metrics.gini([7], [1], 100) == pytest.approx(99 / 100)
    assert metrics.gini([1, 3], [1, 1], 2) == pytest.approx(1 / 4)  # |1 - 3| / (2 * 2 * 2) twice


@pytest.mark.parametrize(
    "call",
    [
        lambda: metrics.average_popularity([[1]], 0, 1),
        lambda: metrics.novelty([[1]], 0, 1),
        lambda: metrics.novelty([[1]], 1, 0),
        lambda: metrics.diversity([["a"]], 0),
        lambda: metrics.gini([1], [3], 2),
        lambda: metrics.gini([], [], 2),
        lambda: metrics.coverage([["a"]], 1, 0),
    ],
)
def test_what_has_no_meaning_is_refused(call) -> None:
    with pytest.raises(ValueError, match=r"\d"):
        call()


COUNTS = st.lists(st.integers(0, 20), min_size=1, max_size=12)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any), st.randoms())
def test_gini_equals_the_mean_difference_and_knows_no_order(shown: list[int], order) -> None:
    times = [n for n in set(shown) if n]
    items = [shown.count(n) for n in times]
    pairs = list(zip(times, items, strict=True))
    order.shuffle(pairs)
    naive = sum(abs(a - b) for a in shown for b in shown) / (2 * len(shown) * sum(shown))
    found = metrics.gini(*np.array(pairs).T, len(shown))
    assert found == pytest.approx(naive)
    assert -1e-12 <= found < 1


@given(st.lists(COUNTS, min_size=1, max_size=5), st.randoms())
def test_popularity_and_novelty_keep_their_range_and_know_no_order(lists: list[list[int]], order) -> None:
    shuffled = [order.sample(one, len(one)) for one in lists]
    for metric, top in ((metrics.average_popularity, 1), (metrics.novelty, log2(20))):
        found = metric(lists, 20, 12)
        assert ((found >= 0) & (found <= top + 1e-12)).all()
        assert metric(shuffled, 20, 12) == pytest.approx(found)


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=8), min_size=1, max_size=5), st.integers(1, 8))
def test_diversity_equals_a_count_of_pairs(lists: list, k: int) -> None:
    naive = []
    for one in lists:
        pairs = list(combinations([x for x in one[:k] if x], 2))
        naive.append(np.mean([a != b for a, b in pairs]) if pairs else np.nan)
    assert metrics.diversity(lists, k) == pytest.approx(naive, nan_ok=True)


HITTING = st.tuples(st.lists(st.integers(0, 9), unique=True, max_size=6), st.sets(st.integers(0, 9), min_size=1))


@settings(deadline=None)
@given(st.lists(HITTING, min_size=1, max_size=6), st.permutations(range(10)), st.integers(1, 6))
def test_hits_lie_between_0_and_1_and_know_neither_names_nor_the_order_of_users(users: list, names: list, k: int) -> None:
    hits = metrics.find_hits([s for s, _ in users], [sorted(t) for _, t in users], 6)
    other = metrics.find_hits(
        [[names[i] for i in s] for s, _ in users[::-1]], [[names[i] for i in t] for _, t in users[::-1]], 6
    )
    for metric in (metrics.ndcg, metrics.recall, metrics.mrr):
        found = metric(hits, k)
        assert ((found >= 0) & (found <= 1 + 1e-12)).all()
        assert metric(other, k)[::-1] == pytest.approx(found)
