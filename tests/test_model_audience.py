"""Audiences against the plain way of adding up, and against what may be known at a moment."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.as_of.audience import (
    SPANS,
    WIDTH,
    Audience,
    audience,
    half_lives,
    histories,
    item_basis,
    stored_histories,
    tastes,
)
from model.as_of.events import Events
from model.as_of.item_state import DAY_US, HOUR_US
from model.spec import PredictSpec, TableRef

NOW = 1_600_000_000_000_000
ITEMS, LENGTH = 12, 6
DAYS = half_lives(timedelta(days=1))


def log(seed: int = 0, users: int = 30) -> Events:
    """Two camps that choose among items of their own, and item 11 that a few of the first camp chose an hour ago."""
    rng = np.random.default_rng(seed)
    rows = [
        (user, int(rng.integers(5)) + 5 * (user % 2), NOW - int(rng.integers(2, 40)) * DAY_US)
        for user in range(users)
        for _ in range(8)
    ]
    rows += [(user, 11, NOW - HOUR_US) for user in (0, 2, 4)]
    rows.sort(key=lambda row: (row[0], row[2]))
    user, item, us = (np.array(column) for column in zip(*rows, strict=True))
    ids = pa.array([f"u{n:02d}" for n in range(users)])
    return Events(ids, user, item.astype(np.int32), us, np.zeros(len(us), np.int8), np.ones(len(us)), us.copy())


def later(events: Events, happened: int, known: int) -> Events:
    """The log with one more event: user 1 (of the other camp) chooses item 11."""
    more = {"user": 1, "item": 11, "us": happened, "kind": 0, "value": 1.0, "available_us": known}
    columns = {name: np.append(getattr(events, name), value) for name, value in more.items()}
    order = np.lexsort((columns["us"], columns["user"]))
    return Events(events.users, **{name: column[order] for name, column in columns.items()})


def at_now(events: Events) -> Audience:
    seen = events.seen_at(NOW)
    return audience(item_basis(seen, ITEMS, 0), histories(seen, LENGTH), NOW, DAYS)


def test_an_audience_is_the_decayed_sum_of_the_tastes_of_those_who_chose() -> None:
    events = log()
    found = at_now(events)
    sums, weight = np.zeros((len(SPANS), ITEMS, WIDTH)), np.zeros((len(SPANS), ITEMS))
    repeated = 0
    for user in range(len(events.users)):
        mine = np.flatnonzero(events.user == user)[-LENGTH:]
        newest = {int(events.item[row]): int(events.us[row]) for row in mine}  # a later one takes the place of an earlier one
        repeated += len(mine) - len(newest)
        taste = sum(found.basis[item] for item in sorted(newest))
        taste = taste / np.linalg.norm(taste)
        for item, us in newest.items():
            for h, days in enumerate(DAYS):
                age = (NOW - us) / DAY_US
                decay = 0.5 ** (age / days) if age < 10 * days else 0.0
                sums[h, item] += decay * taste
                weight[h, item] += decay
    assert repeated > 20, "nobody chooses anything twice: nothing is tested"
    np.testing.assert_allclose(found.sums, sums, atol=2e-3)
    np.testing.assert_allclose(found.weight, weight, atol=2e-3)


def test_who_comes_back_every_day_is_still_one_of_an_audience() -> None:
    basis = np.eye(3, WIDTH, dtype=np.float32)
    often = np.array([[0, 1, 0, 0, 0, 0]]), np.array([[9, 8, 7, 6, 5, 4]]) * -DAY_US + NOW
    once = np.array([[-1, -1, -1, -1, 1, 0]]), np.array([[0, 0, 0, 0, NOW - 8 * DAY_US, NOW - 4 * DAY_US]])
    a, b = (audience(basis, [user], NOW, DAYS) for user in (often, once))
    np.testing.assert_array_equal(a.weight, b.weight)
    np.testing.assert_array_equal(a.sums, b.sums)
    np.testing.assert_allclose(a.weight[2], [0.5 ** (4 / 28), 0.5 ** (8 / 28), 0], atol=1e-4)


def test_lists_for_tomorrow_ask_who_chose_today_and_those_for_a_week_who_ever_did() -> None:
    assert half_lives(timedelta(hours=1)) == half_lives(timedelta(days=2)) == (0.25, 2.0, 28.0)
    assert half_lives(timedelta(days=7)) == half_lives(timedelta(days=180)) == (2.0, 28.0, 365.0)
    event = np.array([[0]]), np.array([[NOW - 200 * DAY_US]])
    of_a_day, of_a_week = (
        audience(np.eye(1, WIDTH, dtype=np.float32), [event], NOW, half_lives(timedelta(days=days))) for days in (1, 7)
    )
    assert of_a_day.weight[2, 0] < 0.01 < 0.6 < of_a_week.weight[2, 0]


def test_a_young_item_is_closer_to_those_who_are_like_the_ones_that_chose_it() -> None:
    events = log()
    found = at_now(events)
    taste = tastes(found.basis, np.array([[0, 1, 2], [5, 6, 7], [-1, -1, -1]]))
    near = found.affinity(taste, np.array([[11], [11], [11]]))[:, 0]
    assert (near[0] > near[1] + 0.1).all()
    assert (near[2] == 0).all(), "whoever has no history is like nobody"


@pytest.mark.parametrize(("happened", "known"), [(NOW, NOW), (NOW + 1, NOW + 1), (NOW - HOUR_US, NOW + 1)])
def test_what_has_not_happened_or_is_not_known_yet_changes_nothing(happened: int, known: int) -> None:
    clean, dirty = at_now(log()), at_now(later(log(), happened, known))
    for name in vars(clean):
        np.testing.assert_array_equal(getattr(clean, name), getattr(dirty, name), name)
    seen = at_now(later(log(), NOW - HOUR_US, NOW))
    assert (seen.weight[:, 11] > clean.weight[:, 11]).all(), "the event must count when it is known, or nothing is tested"


def test_the_order_of_users_does_not_change_a_bit() -> None:
    events = log()
    basis = item_basis(events, ITEMS, 0)
    (item, us), = histories(events, LENGTH)
    whole = audience(basis, [(item, us)], NOW, DAYS)
    pieces = audience(basis, [(item[::-1][k : k + 7], us[::-1][k : k + 7]) for k in range(0, len(item), 7)], NOW, DAYS)
    np.testing.assert_array_equal(whole.sums, pieces.sums)
    np.testing.assert_array_equal(whole.weight, pieces.weight)


def rows(events: Events, moment: int, users: list[int]) -> pa.Table:
    """``user_sequences`` of some users at a moment."""
    mine = [np.flatnonzero((events.user == user) & (events.us < moment)) for user in users]
    us = pa.array([events.us[rows].tolist() for rows in mine], pa.list_(pa.int64()))
    utc = pa.timestamp("us", tz="UTC")
    return pa.table({
        "as_of_ts": pa.array([moment] * len(users)).cast(utc), "user_id": events.users.take(pa.array(users)),
        "item_ids": [[f"i{item:02d}" for item in events.item[rows]] for rows in mine], "event_tss": us.cast(pa.list_(utc)),
    })  # fmt: skip


def test_an_hour_is_the_night_with_those_who_changed(tmp_path: Path) -> None:
    night, everyone = NOW - 2 * HOUR_US, list(range(30))
    events = log()
    pq.write_table(pa.concat_tables([rows(events, night, everyone), rows(events, NOW, [0, 2, 4])]), tmp_path / "hour.parquet")
    pq.write_table(rows(events, NOW, everyone), tmp_path / "full.parquet")
    ids = pa.array([f"i{item:02d}" for item in range(ITEMS)])
    basis = item_basis(events, ITEMS, 0)
    found = []
    for name, since in (("hour", night), ("full", None)):
        table = TableRef(path=str(tmp_path / f"{name}.parquet"), format="parquet")
        told = PredictSpec(tables={"user_sequences": table}, as_of_us=NOW, night_us=since)
        found.append(audience(basis, stored_histories(told, ids, LENGTH), NOW, DAYS))
    trained = audience(basis, histories(events, LENGTH), NOW, DAYS)
    for name in vars(trained):
        np.testing.assert_array_equal(getattr(found[0], name), getattr(found[1], name), name)
        np.testing.assert_array_equal(getattr(found[0], name), getattr(trained, name), name)


def test_a_log_of_one_user_or_one_item_has_an_empty_basis() -> None:
    events = log(users=5)
    assert not item_basis(events.seen_at(0), ITEMS, 0).any()
    one = Events(events.users, *(getattr(events, n)[:1] for n in ("user", "item", "us", "kind", "value", "available_us")))
    assert not item_basis(one, ITEMS, 0).any()
