"""How far back training looks: the same anchors are built and learned from, fewer where they have many labelled users."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
import shop
from pyspark.sql import functions as F

from features.anchors import anchors_before, labelled_users, moments_of, with_neighbors
from features.contracts import ANCHOR_TABLES, EVENTS, ITEM_NEIGHBORS, ITEM_TEMPORAL, RUNS
from features.windows import to_micros
from jobs.build_features import build, needed_anchors
from jobs.train_model import built_anchors

pytestmark = [pytest.mark.spark, pytest.mark.slow]
WEEK = timedelta(days=7)


@pytest.fixture(scope="module")
def log(built_shop):
    return built_shop.warehouse.read(EVENTS)


@pytest.mark.parametrize("repeat", [True, False])
def test_labelled_users_have_a_past_and_a_label_in_the_half_open_window_of_each_anchor(log, built_shop, repeat):
    anchors = anchors_before(shop.NIGHT, built_shop.settings, more=3)
    found = log.select("user_id", "item_id", "event_ts").toPandas()
    found["event_ts"] = found.event_ts.dt.tz_localize("UTC")
    edge = found.event_ts.sort_values().iloc[300].to_pydatetime()  # an event lies right at an anchor, another at its window's end
    born = found.groupby("user_id").event_ts.transform("min")
    label = repeat | (found.groupby(["user_id", "item_id"]).event_ts.transform("min") == found.event_ts)
    for moments in (anchors, [edge, edge - WEEK]):
        told = labelled_users(log, moments, WEEK, shop.NIGHT, repeat).first()
        assert list(told) == [found.user_id[label & (found.event_ts >= a) & (found.event_ts < a + WEEK) & (born < a)].nunique() for a in moments]
    assert min(told) > 0 and len(set(told)) > 1


def test_who_became_known_after_as_of_is_not_counted_and_no_window_is_open(log):
    (anchor,) = anchors = [shop.NIGHT - WEEK]
    late = log.withColumn("user_id", F.concat(F.lit("late-"), "user_id")).withColumn("available_ts", F.lit(shop.NIGHT + timedelta(seconds=1)))
    counted = [labelled_users(rows, anchors, WEEK, shop.NIGHT, True).first() for rows in (log.unionByName(late), log)]
    assert counted[0] == counted[1]
    with pytest.raises(ValueError, match="ends after as_of"):
        labelled_users(log, [anchor + timedelta(seconds=1)], WEEK, shop.NIGHT, True)


@pytest.mark.parametrize(("training", "anchors"), [({"enough_users": 1}, 4), ({"enough_users": 125}, 5), ({"enough_users": 10_000}, 6), ({"anchors": 1}, 1)])
def test_older_anchors_are_built_only_where_newer_ones_have_few_labelled_users(built_shop, log, tmp_path, training, anchors):
    context = shop.context(built_shop.spark, shop.settings(tmp_path, training=training), shop.NIGHT + timedelta(hours=1))
    *past, _ = moments_of(to_micros(shop.START), context.as_of, context.settings)
    assert len(past) == (1 if "anchors" in training else 6)  # six weeks of about thirty users
    assert needed_anchors(context, log, past) == past[-anchors:]


@pytest.mark.parametrize(
    ("every", "count", "hours"),
    [  # hours before the night at which neighbours are made, of anchors that begin one distance before it
        (timedelta(hours=1), 14, [14, 12, 6]),
        (timedelta(hours=1), 12, [12, 6]),
        (timedelta(hours=4), 7, [28, 24, 16, 12, 4]),
        (timedelta(hours=6), 4, [24, 18, 12, 6]),
        (timedelta(days=7), 3, [504, 336, 168]),
    ],
)
def test_neighbours_are_made_at_the_first_anchor_of_a_quarter_of_the_day_and_at_the_oldest(every, count, hours):
    anchors = [shop.NIGHT - k * every for k in range(count, 0, -1)]
    assert with_neighbors(anchors, every) == [shop.NIGHT - timedelta(hours=h) for h in hours]
    assert with_neighbors([], every) == []


def built(context):
    """At how many moments the newest build made features."""
    return context.warehouse.read(RUNS).where("job = 'build_features'").orderBy(F.desc("started_ts")).first().counts["moments"]


def test_anchors_of_hours_share_neighbours_and_are_built_once(built_shop, tmp_path):
    chosen = shop.copied(built_shop, tmp_path, horizon="3h", training=built_shop.settings.training.model_dump(mode="json") | {"anchors": 6})
    context = replace(chosen, as_of=shop.NIGHT + timedelta(hours=30))
    build(context, backfill=True)
    anchors = [context.as_of - k * timedelta(hours=3) for k in range(6, 0, -1)]
    have, near = context.warehouse.moments(*ANCHOR_TABLES), context.warehouse.moments(ITEM_NEIGHBORS)
    assert have >= {*anchors, context.as_of} and built_anchors(context) == anchors
    assert near & {*anchors, context.as_of} == {anchors[k] for k in (0, 2, 4)} | {context.as_of}  # 12:00, 18:00, 00:00 and the night
    before = context.warehouse.partition(ITEM_NEIGHBORS, anchors[0]).collect()
    context.warehouse.delete(ITEM_TEMPORAL, f"as_of_ts = TIMESTAMP '{anchors[3].isoformat()}'")  # as of a build that was cut off
    context.warehouse.delete(ITEM_NEIGHBORS, f"as_of_ts <= TIMESTAMP '{anchors[0].isoformat()}'")  # as retain does
    build(context, backfill=True)
    assert built(context) == 3 and context.warehouse.partition(ITEM_NEIGHBORS, anchors[0]).collect() == before


def test_where_no_items_met_anchors_are_built_all_the_same(built_shop, tmp_path):
    features = built_shop.settings.features.model_dump(mode="json") | {"neighbor_min_together": 1_000_000}
    context = replace(shop.copied(built_shop, tmp_path, features=features), as_of=shop.NIGHT + timedelta(hours=30))
    build(context, backfill=True)
    anchors = [context.as_of - 2 * WEEK, context.as_of - WEEK]
    assert not context.warehouse.moments(ITEM_NEIGHBORS) & {*anchors, context.as_of}
    assert built_anchors(context) == anchors
