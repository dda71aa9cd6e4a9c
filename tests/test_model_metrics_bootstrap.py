"""The Poisson bootstrap: its weights, its intervals, its paired differences."""

from __future__ import annotations

import numpy as np
import pytest

from model.metrics import FEWEST, Draws, bootstrap_interval, poisson_weights, reality_check

USERS = 400
KEYS = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, USERS)
WEIGHTS = poisson_weights(KEYS, 1000)


def test_weights_are_poisson_of_mean_one_and_the_first_are_the_users_themselves() -> None:
    drawn = WEIGHTS[:, 1:]
    assert (WEIGHTS[:, 0] == 1).all()
    assert drawn.mean() == pytest.approx(1, abs=0.01)
    assert drawn.var() == pytest.approx(1, abs=0.02)
    assert (drawn == 0).mean() == pytest.approx(np.exp(-1), abs=0.005)
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.2
    assert abs(np.corrcoef(drawn[0], drawn[1])[0, 1]) < 0.2


def test_neighbouring_keys_have_unrelated_weights() -> None:
    drawn = poisson_weights(np.arange(50), 2000)[:, 1:]
    off = np.corrcoef(drawn)[~np.eye(50, dtype=bool)]
    assert np.abs(off).max() < 0.12


def test_a_users_weights_depend_on_its_key_and_the_seed_alone() -> None:
    assert np.array_equal(poisson_weights(KEYS[7:9], 1000), WEIGHTS[7:9])
    assert not np.array_equal(poisson_weights(KEYS, 1000, seed=1), WEIGHTS)


def test_the_interval_is_that_of_drawing_users() -> None:
    values = np.random.default_rng(1).normal(5, 2, USERS)
    draws = Draws.of(values, WEIGHTS)
    assert draws.mean == pytest.approx(values.mean())
    assert draws.interval() == pytest.approx(bootstrap_interval(values, seed=0), abs=0.06)


def test_sums_of_parts_add_up_to_the_whole_and_who_has_no_value_is_left_out() -> None:
    values = np.random.default_rng(2).random(USERS)
    values[::3] = np.nan
    whole = Draws.of(values, WEIGHTS)
    parts = Draws.of(values[:150], WEIGHTS[:150]) + Draws.of(values[150:], WEIGHTS[150:])
    assert parts.total == pytest.approx(whole.total)
    assert whole.users == np.isfinite(values).sum()
    assert whole.mean == pytest.approx(np.nanmean(values))


def test_pairing_sees_a_small_difference_that_two_intervals_do_not() -> None:
    random = np.random.default_rng(3)
    base = random.random(USERS)
    one, two = Draws.of(base + random.normal(0.01, 0.02, USERS), WEIGHTS), Draws.of(base, WEIGHTS)
    assert one.interval().low < two.interval().high  # they overlap
    found = one.less(two)
    assert found.interval.low > 0
    assert found.p == pytest.approx(2 / 1001)
    assert two.less(one).value == pytest.approx(-found.value)
    assert two.less(one).interval == pytest.approx([-found.interval.high, -found.interval.low])


def test_the_same_lists_do_not_differ() -> None:
    one = Draws.of(np.random.default_rng(4).random(USERS), WEIGHTS)
    found = one.less(one)
    assert (found.value, *found.interval, found.p) == (0, 0, 0, 1)


def test_p_is_uniform_where_nothing_differs() -> None:
    random = np.random.default_rng(5)
    p = []
    for _ in range(200):
        weights = poisson_weights(random.integers(-(2**63), 2**63 - 1, 100), 200)
        p.append(Draws.of(random.normal(0, 1, 100), weights).less(Draws.of(np.zeros(100), weights)).p)
    assert 0.01 <= np.mean(np.array(p) < 0.05) <= 0.1
    assert np.mean(p) == pytest.approx(0.5, abs=0.07)


def test_few_users_have_no_interval_and_none_have_no_mean() -> None:
    few = Draws.of(np.arange(FEWEST - 1.0), WEIGHTS[: FEWEST - 1])
    assert few.interval() is None
    assert few.less(few) is None
    with pytest.raises(ValueError, match="no user"):
        _ = Draws.of(np.array([np.nan]), WEIGHTS[:1]).mean
    with pytest.raises(ValueError, match="the same ones"):
        few.less(Draws.of(np.arange(20.0), WEIGHTS[:20]))


def test_the_best_of_many_by_chance_is_not_taken_for_better() -> None:
    random = np.random.default_rng(5)
    found = []
    for _ in range(100):
        first, *others = (Draws.of(random.random(USERS), WEIGHTS) for _ in range(11))
        best = max(others, key=lambda one: one.mean)
        found.append((reality_check(first, others), best.less(first).p))
    p, alone = np.array(found).T
    assert (p < 0.05).mean() < 0.08, "5 % are to be expected"
    assert (alone < 0.05).mean() > 0.12, "who looks at the best alone is misled more often"


def test_one_that_is_better_stands_out_among_many() -> None:
    random = np.random.default_rng(6)
    base = random.random(USERS)
    others = [Draws.of(base + random.normal(lead, 0.1, USERS), WEIGHTS) for lead in (0, 0, 0.03, 0, 0)]
    assert reality_check(Draws.of(base, WEIGHTS), others) < 0.01
