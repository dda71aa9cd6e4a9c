"""Truth is what users with a past did in the window, exactly; baselines are the lists one could have had instead."""

from __future__ import annotations

from datetime import UTC, timedelta

import oracles
import pytest
import worlds
from test_features import SETTINGS, frames

from conf.load import from_tree
from features.baselines import personal_lists, popularity_lists
from features.contracts import EVENTS
from features.item_sums import item_sums
from features.item_temporal import item_temporal
from features.repeats import user_item_repeats
from features.truth import judged_truth, truth_by_hour
from jobs.store.table_io import schema

pytestmark = pytest.mark.spark
AS_OF = worlds.START + timedelta(days=42)


@pytest.fixture(scope="module")
def world(spark):
    events, items = worlds.shop()
    return events, *frames(spark, events, items)


def truth_of(events, settings):
    end = AS_OF + settings.horizon
    seen = {}
    for event in oracles.known(events, AS_OF):
        seen.setdefault(event.user_id, set()).add(event.item_id)
    after = {}
    for event in events:
        if AS_OF <= event.event_ts < end and event.user_id in seen:
            after.setdefault(event.user_id, set()).add(event.item_id)
    if settings.repeat_consumption:
        return after
    return {u: left for u, items in after.items() if (left := items - seen[u])}


@pytest.mark.parametrize("repeat", [True, False])
def test_the_truth_is_the_window_of_those_with_a_past(world, repeat):
    events, log, _ = world
    settings = from_tree(SETTINGS.resolved() | {"repeat_consumption": repeat})
    found = {row.user_id: row for row in judged_truth(log, AS_OF, settings).collect()}
    assert {user: set(row.truth) for user, row in found.items()} == truth_of(events, settings)
    assert all(not row.seen for row in found.values()) == repeat


def hours_of(events, settings):
    """(user, hour) -> (first event, what was taken that is true); what does not repeat is taken once."""
    true, hours, before = truth_of(events, settings), {}, set()
    for event in sorted(events, key=lambda event: event.event_ts):
        if not AS_OF <= event.event_ts < AS_OF + settings.horizon or event.user_id not in true:
            continue
        hour = event.event_ts.replace(minute=0, second=0, microsecond=0)
        _, taken = hours.setdefault((event.user_id, hour), (event.event_ts, set()))
        first = before if not settings.repeat_consumption else set()
        if event.item_id in true[event.user_id] and (event.user_id, event.item_id) not in first:
            taken.add(event.item_id)
            before.add((event.user_id, event.item_id))
    return {(user, when): taken for (user, _), (when, taken) in hours.items() if taken}


@pytest.mark.parametrize("repeat", [True, False])
def test_each_hour_has_what_was_taken_in_it(world, repeat):
    events, log, _ = world
    settings = from_tree(SETTINGS.resolved() | {"repeat_consumption": repeat})
    truth = judged_truth(log, AS_OF, settings)
    rows = truth_by_hour(log, truth, AS_OF, settings).collect()
    found = {(row.user_id, row.visit_ts.astimezone(UTC)): set(row.truth) for row in rows}
    expected = hours_of(events, settings)
    assert found == expected
    assert len(rows) == len(expected) > len(truth_of(events, settings)), "some come in several hours"


def test_an_event_at_the_end_of_the_window_is_not_in_it_and_one_at_as_of_is(spark):
    rows = [
        (f"e{k}", "u", f"i{k}", "view", when, when, None, None, "s")
        for k, when in enumerate([AS_OF - timedelta(days=1), AS_OF, AS_OF + SETTINGS.horizon])
    ]
    (row,) = judged_truth(spark.createDataFrame(rows, schema(EVENTS)), AS_OF, SETTINGS).collect()
    assert row.truth == ["i1"]


def test_popularity_is_the_order_of_decayed_sales_without_what_was_seen(world):
    events, log, items = world
    settings = from_tree(SETTINGS.resolved() | {"repeat_consumption": False})
    temporal = item_temporal(item_sums(log, [AS_OF]), items, [AS_OF])
    truth = judged_truth(log, AS_OF, settings)
    found = {r.user_id: list(r["7d"]) for r in popularity_lists(temporal, truth, ["7d", "1d"], 3).collect()}
    rows = {k: r for k, r in oracles.temporal(events, worlds.shop()[1], AS_OF).items() if r["item_available"]}
    order = sorted(rows, key=lambda k: (-rows[k]["item_decayed_7d"], k))
    assert found
    for row in truth.collect():
        assert found[row.user_id] == [k for k in order if k not in row.seen][:3]


def test_personal_frequency_fills_up_with_what_is_popular(world):
    events, log, items = world
    temporal, repeats = item_temporal(item_sums(log, [AS_OF]), items, [AS_OF]), user_item_repeats(log, [AS_OF], SETTINGS)
    truth = judged_truth(log, AS_OF, SETTINGS)
    found = {r.user_id: list(r["90d"]) for r in personal_lists(repeats, temporal, truth, ["28d", "90d"], "7d", 8).collect()}
    mine = oracles.repeats(events, AS_OF, SETTINGS.repeats_per_user)
    rows = {k: r for k, r in oracles.temporal(events, worlds.shop()[1], AS_OF).items() if r["item_available"]}
    popular = sorted(rows, key=lambda k: (-rows[k]["item_decayed_7d"], k))
    assert found
    for user, items_shown in found.items():
        own = {item: r for (who, item), r in mine.items() if who == user and item in rows}
        own_order = sorted(own, key=lambda k: (-own[k]["repeat_decayed_90d"], -rows[k]["item_decayed_7d"], k))
        assert items_shown == (own_order + [k for k in popular if k not in own])[:8]
