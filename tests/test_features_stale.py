"""Which shown lists are stale, in a few lines of plain data."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from features.contracts import EVENTS, ITEM_TEMPORAL, ITEMS
from features.served import shown_at
from features.stale import holding_unavailable, overtaken, shown_before, trending, trending_since
from jobs.store.table_io import schema

pytestmark = pytest.mark.spark
NIGHT = datetime(2024, 3, 1, tzinfo=UTC)
HOUR = NIGHT + timedelta(hours=6)
LISTS = "as_of_ts TIMESTAMP, mode STRING, user_id STRING, item_id STRING"


def lists(spark, *rows):
    return spark.createDataFrame([(NIGHT + timedelta(hours=h), mode, u, i) for h, mode, u, i in rows], LISTS)


def users(frame):
    return sorted(row.user_id for row in frame.collect())


def items(spark, **until):
    names = [f.name for f in schema(ITEMS).fields]
    rows = [{"item_id": i, "available_until": at, "release_known": False, "release_ts": NIGHT} for i, at in until.items()]
    kind = schema(ITEMS)
    for field in kind.fields:
        field.nullable = True
    return spark.createDataFrame([tuple(row.get(n) for n in names) for row in rows], kind)


def temporal(spark, moment, **heat):
    kind = schema(ITEM_TEMPORAL)
    for field in kind.fields:
        field.nullable = True
    row = {"as_of_ts": moment, "item_available": True}
    named = [row | {"item_id": i, "item_decayed_1d": float(h)} for i, h in heat.items()]
    return spark.createDataFrame([tuple(r.get(f.name) for f in kind.fields) for r in named], kind)


def test_what_was_shown_is_the_newest_list_since_the_night_and_an_hour_comes_before_a_night(spark):
    record = lists(
        spark, (-24, "nightly", "gone", "x"), (0, "nightly", "a", "n"), (0, "nightly", "b", "n"), (1, "hourly", "a", "1"),
        (3, "hourly", "a", "3"), (3, "nightly", "b", "later"), (3, "hourly", "b", "both"),
    )  # fmt: skip
    seen = {h: {(r.user_id, r.item_id) for r in shown_at(record, NIGHT + timedelta(hours=h)).collect()} for h in (-24, 0, 2, 3)}
    assert seen == {-24: {("gone", "x")}, 0: {("a", "n"), ("b", "n")}, 2: {("a", "1"), ("b", "n")}, 3: {("a", "3"), ("b", "both")}}


def test_an_hour_asks_the_same_users_when_it_is_run_again(spark):
    record = lists(spark, (0, "nightly", "a", "n"), (6, "hourly", "a", "new"))
    before = lists(spark, (0, "nightly", "a", "n"))
    first, again = (shown_before(r, latest, HOUR).collect() for r, latest in ((before, before), (record, record.where("mode = 'hourly'"))))
    assert first == again and [r.item_id for r in first] == ["n"]


def test_a_list_taken_back_to_is_judged_as_it_is_shown(spark):
    record = lists(spark, (0, "nightly", "a", "n"), (2, "hourly", "a", "new"))
    shown = shown_before(record, lists(spark, (0, "nightly", "a", "n")), HOUR)
    assert {r.item_id for r in shown.collect()} == {"n", "new"}


def test_lists_with_an_item_that_is_gone_at_the_hour(spark):
    shown = lists(spark, (0, "nightly", "a", "ends"), (0, "nightly", "a", "stays"), (0, "nightly", "b", "stays"), (0, "nightly", "c", "later"))
    catalogue = items(spark, ends=HOUR, stays=None, later=HOUR + timedelta(microseconds=1))
    assert users(holding_unavailable(shown, catalogue, HOUR)) == ["a"]
    assert users(holding_unavailable(shown, catalogue, HOUR - timedelta(microseconds=1))) == []


def test_what_trends_at_an_hour_is_the_night_aged_and_what_is_new_and_not_gone(spark):
    night = temporal(spark, NIGHT, old=2, gone=9, rising=0.5)
    kind = schema(EVENTS)
    for field in kind.fields:
        field.nullable = True
    at = HOUR - timedelta(hours=1)
    sold = {"user_id": "u", "item_id": "rising", "event_ts": at, "available_ts": at}
    new = spark.createDataFrame([tuple(sold.get(f.name) for f in kind.fields)] * 3, kind)
    catalogue = items(spark, gone=HOUR)
    now = trending_since(night, new, catalogue, NIGHT, HOUR, 2)
    assert [r.item_id for r in now.orderBy("item_id").collect()] == ["old", "rising"]
    assert [r.item_id for r in trending_since(night, new, catalogue, NIGHT, HOUR, 1).collect()] == ["rising"]  # 0.4 + 2.9 > 1.7


def test_lists_of_a_moment_since_when_other_things_trend(spark):
    shown = lists(spark, (0, "nightly", "night", "x"), (3, "hourly", "hour", "x"), (-5, "nightly", "lost", "x"))
    then = trending(temporal(spark, NIGHT, a=5, b=4, c=3, d=0.1).unionByName(temporal(spark, NIGHT + timedelta(hours=3), a=5, e=4, f=3)), 3)
    now = trending(temporal(spark, HOUR, a=5, e=4, f=3), 3)
    assert users(overtaken(shown, then, now, 3, 0.5)) == ["lost", "night"]
    assert users(overtaken(shown, then, now, 3, 0.67)) == ["lost"]  # 2 of 3 changed
