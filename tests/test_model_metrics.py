"""Metrics as visible arithmetic, against naive formulas, and in their corners."""

from __future__ import annotations

from math import log2

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.metrics import bootstrap_interval, coverage, find_hits, measure, mrr, ndcg, recall

# Anna is shown a b c and took b and x (x was never shown); Ben is shown d e f and took d; Cleo is shown g and took h.
LISTS = [["a", "b", "c"], ["d", "e", "f"], ["g"]]
TRUTH = [["b", "x"], ["d"], ["h"]]
HITS = find_hits(LISTS, TRUTH, 3)


def test_ndcg_is_the_discounted_hits_over_the_best_possible() -> None:
    anna = (1 / log2(3)) / (1 / log2(2) + 1 / log2(3))
    ben = (1 / log2(2)) / (1 / log2(2))
    assert ndcg(HITS, 3) == pytest.approx([anna, ben, 0.0])


def test_the_ideal_list_is_no_longer_than_k_and_no_longer_than_the_truth() -> None:
    two_of_three = find_hits([["a", "b"]], [["a", "b", "c"]], 2)
    assert ndcg(two_of_three, 2) == pytest.approx([1.0])  # both places are right: a third cannot be asked of two
    assert ndcg(two_of_three, 1) == pytest.approx([1.0])


def test_recall_is_a_share_of_all_true_items() -> None:
    assert recall(HITS, 3) == pytest.approx([1 / 2, 1 / 1, 0 / 1])
    assert recall(HITS, 1) == pytest.approx([0 / 2, 1 / 1, 0 / 1])
    assert recall(find_hits([["a"]], [["a", "b", "c"]], 1), 1) == pytest.approx([1 / 3])


def test_mrr_is_one_over_the_place_of_the_first_hit() -> None:
    assert mrr(HITS, 3) == pytest.approx([1 / 2, 1 / 1, 0])
    assert mrr(HITS, 1) == pytest.approx([0, 1 / 1, 0])
    assert mrr(find_hits([["a", "b", "c"]], [["b", "c"]], 3), 3) == pytest.approx([1 / 2])


def test_coverage_counts_distinct_items_in_the_first_k_places() -> None:
    assert coverage([["a", "b", "c"], ["a", "d", "e"]], 2, 10) == pytest.approx(3 / 10)  # a, b, d
    assert coverage([["a", "b", "c"], ["a", "d", "e"]], 3, 10) == pytest.approx(5 / 10)


def test_measure_is_the_mean_over_users_with_coverage_beside_it() -> None:
    anna = (1 / log2(3)) / (1 / log2(2) + 1 / log2(3))
    assert measure(LISTS, TRUTH, 14, ks=(1, 3)) == pytest.approx(
        {
            "ndcg@1": (0 + 1 + 0) / 3, "recall@1": (0 + 1 + 0) / 3, "mrr@1": (0 + 1 + 0) / 3, "coverage@1": 3 / 14,
            "ndcg@3": (anna + 1 + 0) / 3, "recall@3": (1 / 2 + 1 + 0) / 3, "mrr@3": (1 / 2 + 1 + 0) / 3, "coverage@3": 7 / 14,
        }
    )  # fmt: skip


def test_a_true_item_counts_once_however_often_it_was_taken() -> None:
    assert find_hits([["a", "b"]], [["a", "a", "c"]], 2).truth_U.tolist() == [2]


def test_another_users_truth_is_no_hit() -> None:
    assert not find_hits([["a"], ["b"]], [["b"], ["a"]], 1).hit_UK.any()


def test_arrow_arrays_numbers_and_empty_lists_are_lists_too() -> None:
    lists = pa.chunked_array([pa.array([[7, 8]], pa.list_(pa.int32())), pa.array([None, []], pa.list_(pa.int32()))])
    hits = find_hits(lists, [[8], [8], [7]], 2)
    assert hits.hit_UK.tolist() == [[False, True], [False, False], [False, False]]
    assert find_hits([[], []], [["a"], ["b"]], 2).hit_UK.tolist() == [[False, False], [False, False]]


def test_a_slice_of_an_arrow_array_is_read_from_its_own_start() -> None:
    lists = pa.array([["x"], ["a", "b"], ["c"]]).slice(1)
    assert find_hits(lists, [["b"], ["c"]], 2).hit_UK.tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize(
    ("lists", "truth", "message"),
    [
        ([], [], "0 lists"),
        ([["a"]], [["a"], ["b"]], "1 lists and 2 truths"),
        ([["a"], ["b"]], [["a"], []], "1 of 2 users have no true item"),
        ([["a", "a"]], [["a"]], "twice"),
        ([["a", None]], [["a"]], "1 items in the lists are NULL"),
    ],
)
def test_what_cannot_be_judged_is_refused(lists: list, truth: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_hits(lists, truth, 2)


def test_a_cut_deeper_than_the_lists_were_read_is_refused() -> None:
    with pytest.raises(ValueError, match="read to depth 3"):
        ndcg(HITS, 4)


def naive(lists: list[list[int]], truth: list[set[int]], k: int) -> tuple[float, float]:
    """NDCG and recall as the peers' benchmark states them, user by user."""
    discounted = found = 0.0
    for shown, true in zip(lists, truth, strict=True):
        hit = np.array([item in true for item in shown[:k]])
        found += hit.sum() / len(true)
        ideal = (1 / np.log2(np.arange(2, 2 + min(k, len(true))))).sum()
        discounted += (hit / np.log2(np.arange(2, 2 + len(hit)))).sum() / ideal
    return discounted / len(lists), found / len(lists)


USER = st.tuples(st.lists(st.integers(0, 30), unique=True, max_size=12), st.sets(st.integers(0, 30), min_size=1))


@settings(max_examples=200, deadline=None)
@given(st.lists(USER, min_size=1, max_size=6), st.integers(1, 12))
def test_the_metrics_equal_the_naive_formulas(users: list, k: int) -> None:
    lists, truth = [list(shown) for shown, _ in users], [true for _, true in users]
    found = measure(lists, [sorted(true) for true in truth], 31, ks=(k,))
    assert (found[f"ndcg@{k}"], found[f"recall@{k}"]) == pytest.approx(naive(lists, truth, k))


def test_the_interval_holds_the_mean_narrows_with_users_and_repeats_with_its_seed() -> None:
    few = np.random.default_rng(0).random(50)
    many = np.tile(few, 16)
    low, high = bootstrap_interval(few, seed=1)
    assert low < few.mean() < high
    wide, narrow = high - low, np.subtract(*bootstrap_interval(many, seed=1)[::-1])
    assert narrow == pytest.approx(wide / 4, rel=0.2)  # sixteen times the users: a quarter of the width
    assert bootstrap_interval(few, seed=1) == (low, high) != bootstrap_interval(few, seed=2)


def test_the_interval_of_a_mean_is_about_two_standard_errors_each_way() -> None:
    values = np.random.default_rng(3).normal(5.0, 2.0, 400)
    low, high = bootstrap_interval(values, seed=0, draws=4000)
    error = values.std() / np.sqrt(400)
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.2 * error)


def test_an_interval_over_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one user"):
        bootstrap_interval(np.array([]), seed=0)
