"""Weights between items against a least-squares problem that is solved item by item, and against what may be known at a moment."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from model.as_of import ease as module
from model.as_of.ease import Ease, fit_ease
from model.as_of.events import Events
from model.as_of.item_state import DAY_US
from model.as_of.pairs import Pairs

NOW = 1_600_000_000_000_000
ITEMS = 14


def log(seed: int = 0, users: int = 40) -> Events:
    """Two camps with items of their own, most chosen more than once; item 12 one person's alone, item 13 nobody's."""
    rng = np.random.default_rng(seed)
    rows = [(user, int(rng.integers(6)) + 6 * (user % 2), NOW - int(rng.integers(1, 300)) * DAY_US) for user in range(users) for _ in range(9)]
    rows.append((3, 12, NOW - DAY_US))
    rows.sort(key=lambda row: (row[0], row[2]))
    user, item, us = (np.array(column) for column in zip(*rows, strict=True))
    ids = pa.array([f"u{n:02d}" for n in range(users)])
    return Events(ids, user, item.astype(np.int32), us, np.zeros(len(us), np.int8), np.ones(len(us)), us.copy())


def dense(found: Ease) -> np.ndarray:
    """(ITEMS, ITEMS): what having the row says of the column."""
    out = np.zeros((found.items, found.items))
    for row, item in enumerate(found.item):
        np.add.at(out[item], found.item[found.other[row]], found.weight[row])
    return out


def had_of(events: Events) -> np.ndarray:
    had = np.zeros((len(events.users), ITEMS))
    had[events.user, events.item] = 1
    return had


def test_each_item_is_predicted_from_the_others_by_ridge_regression() -> None:
    events = log()
    assert len(events.us) > len(events.distinct(ITEMS)[0]), "somebody chose something twice, and counts once"
    had, found = had_of(events), fit_ease(events, ITEMS)
    assert found.item.tolist() == list(range(12)), "what one person had, or nobody, goes with nothing"
    wanted = np.zeros((ITEMS, ITEMS))
    for item in found.item:
        others = [other for other in found.item if other != item]
        x, y = had[:, others], had[:, item]
        wanted[others, item] = np.linalg.solve(x.T @ x + module._RIDGE * np.eye(len(others)), x.T @ y)
    np.testing.assert_allclose(dense(found), wanted, atol=1e-6)


@pytest.mark.parametrize("moved", [False, True])
def test_the_weight_of_a_pair_is_the_one_that_is_kept(moved: bool) -> None:
    found = fit_ease(log(), ITEMS)
    if moved:  # two items are gone, and the rest stand elsewhere
        found = found.moved(np.array([7, -1, 3, 0, 9, 2, 11, 5, -1, 1, 4, 6, 8, 10]), ITEMS)
    pairs = np.indices((ITEMS, ITEMS))
    np.testing.assert_allclose(found.weight_of(*pairs), dense(found), atol=1e-7)
    assert np.count_nonzero(dense(found)) >= 40, "the test would prove nothing"
    assert not found.weight_of(np.array([-1, 0, -1]), np.array([0, -1, -1])).any()


def test_scores_are_the_sum_over_all_that_a_user_had() -> None:
    events = log()
    found, had = fit_ease(events, ITEMS), had_of(events)
    user, item = events.distinct(ITEMS)
    scores = found.scores(Pairs.gather(user, item, np.ones((len(user), 1), np.float32), ITEMS), len(had))
    asked = np.tile([[5, 0, 12, -1, 7, 13]], (len(had), 1))
    wanted = np.where(asked >= 0, (had @ dense(found))[:, [5, 0, 12, 13, 7, 13]], 0)
    np.testing.assert_allclose(found.look_up(scores, asked), wanted, atol=1e-6)
    own = found.look_up(scores, asked)
    assert (own[0::2, 1] > own[1::2, 1]).all(), "who is of a camp is told of its items"


def test_the_commonest_items_and_the_heaviest_weights_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    events = log()
    whole, people = dense(fit_ease(events, ITEMS)), np.bincount(events.distinct(ITEMS)[1], minlength=ITEMS)
    monkeypatch.setattr(module, "KEPT", 3)
    few = fit_ease(events, ITEMS)
    assert few.other.shape == (12, 3)
    for item, row in zip(few.item, dense(few), strict=False):
        heaviest = np.sort(np.argsort(-np.abs(whole[item]))[:3])
        assert np.flatnonzero(row).tolist() == heaviest.tolist()
    monkeypatch.setattr(module, "ITEMS", 5)
    common = fit_ease(events, ITEMS).item
    assert len(common) == 5
    assert people[common].min() >= np.delete(people, common).max()


def test_of_many_people_some_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    events = log()
    kept = events.user % 2 == 0
    half = {name: getattr(events, name)[kept] for name in ("user", "item", "us", "kind", "value", "available_us")}
    wanted = dense(fit_ease(replace(events, **half), ITEMS))
    monkeypatch.setattr(module, "_PEOPLE", 20)
    found = dense(fit_ease(events, ITEMS))
    np.testing.assert_allclose(found[:6, :6], wanted[:6, :6], atol=1e-6)
    assert not found[6:, :].any(), "nobody who was asked is of the other camp"


def test_what_has_not_happened_or_is_not_known_yet_changes_nothing() -> None:
    events = log()
    for happened, known in ((NOW + DAY_US, NOW + DAY_US), (NOW - DAY_US, NOW + 1)):
        more = {"user": 1, "item": 0, "us": happened, "kind": 0, "value": 1.0, "available_us": known}
        later = Events(events.users, **{name: np.append(getattr(events, name), value) for name, value in more.items()})
        np.testing.assert_array_equal(dense(fit_ease(later.seen_at(NOW), ITEMS)), dense(fit_ease(events.seen_at(NOW), ITEMS)))
        assert (dense(fit_ease(later.seen_at(NOW + 2 * DAY_US), ITEMS)) != dense(fit_ease(events, ITEMS))).any()


def test_who_came_later_does_not_choose_who_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A moment's events keep the names of all users, of later ones too."""
    events = log()
    monkeypatch.setattr(module, "_PEOPLE", 20)
    later = replace(events, users=pa.array(["a", "b", "c", *events.users.to_pylist()]), user=events.user + 3)
    np.testing.assert_array_equal(dense(fit_ease(later.seen_at(NOW), ITEMS)), dense(fit_ease(events.seen_at(NOW), ITEMS)))


def test_in_another_catalogue_items_keep_their_weights() -> None:
    found = fit_ease(log(), ITEMS)
    to = np.array([4, -1, *range(5, 17)])  # two came before the first, one after it, and the second is gone
    moved, before = dense(found.moved(to, 18)), dense(found)
    stay = np.flatnonzero(to >= 0)
    np.testing.assert_array_equal(moved[np.ix_(to[stay], to[stay])], before[np.ix_(stay, stay)])
    assert np.count_nonzero(moved) == np.count_nonzero(before[np.ix_(stay, stay)])
    backwards = np.arange(ITEMS)[::-1].copy()
    np.testing.assert_array_equal(dense(found.moved(backwards, ITEMS)), before[::-1, ::-1])


def test_a_log_in_which_nobody_shares_anything_has_no_weights() -> None:
    empty = fit_ease(log().seen_at(0), ITEMS)
    assert not len(empty.item)
    nobody = Pairs.gather(np.array([0]), np.array([2]), np.ones((1, 1), np.float32), ITEMS)
    assert not empty.look_up(empty.scores(nobody, 2), np.array([[2, -1], [0, 1]])).any()
    assert not len(empty.moved(np.arange(ITEMS), ITEMS).item)
