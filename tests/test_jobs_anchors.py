"""How far back training looks: the same anchors are built and learned from, fewer where they have many labelled users."""

from __future__ import annotations

from datetime import timedelta

import pytest
import shop
from pyspark.sql import functions as F

from features.anchors import anchors_before, labelled_users, moments_of
from features.contracts import EVENTS
from features.windows import to_micros
from jobs.build_features import needed_anchors

pytestmark = pytest.mark.spark
WEEK = timedelta(days=7)


@pytest.fixture(scope="module")
def log(built_shop):
    return built_shop.warehouse.read(EVENTS)


def test_labelled_users_are_those_of_the_half_open_window_of_each_anchor(log, built_shop):
    anchors = anchors_before(shop.NIGHT, built_shop.settings, more=3)
    found = log.select("user_id", "event_ts").toPandas()
    found["event_ts"] = found.event_ts.dt.tz_localize("UTC")
    edge = found.event_ts.sort_values().iloc[300].to_pydatetime()  # an event lies right at an anchor, another at its window's end
    for moments in (anchors, [edge, edge - WEEK]):
        told = labelled_users(log, moments, WEEK, shop.NIGHT).first()
        assert list(told) == [found.user_id[(found.event_ts >= a) & (found.event_ts < a + WEEK)].nunique() for a in moments]
    assert min(told) > 0 and len(set(told)) > 1


def test_who_became_known_after_as_of_is_not_counted_and_no_window_is_open(log):
    (anchor,) = anchors = [shop.NIGHT - WEEK]
    late = log.withColumn("user_id", F.concat(F.lit("late-"), "user_id")).withColumn("available_ts", F.lit(shop.NIGHT + timedelta(seconds=1)))
    assert labelled_users(log.unionByName(late), anchors, WEEK, shop.NIGHT).first() == labelled_users(log, anchors, WEEK, shop.NIGHT).first()
    with pytest.raises(ValueError, match="ends after as_of"):
        labelled_users(log, [anchor + timedelta(seconds=1)], WEEK, shop.NIGHT)


@pytest.mark.parametrize(("training", "anchors"), [({"enough_users": 1}, 4), ({"enough_users": 125}, 5), ({"enough_users": 10_000}, 6), ({"anchors": 1}, 1)])
def test_older_anchors_are_built_only_where_newer_ones_have_few_labelled_users(built_shop, log, tmp_path, training, anchors):
    context = shop.context(built_shop.spark, shop.settings(tmp_path, training=training), shop.NIGHT + timedelta(hours=1))
    *past, _ = moments_of(to_micros(shop.START), context.as_of, context.settings)
    assert len(past) == (1 if "anchors" in training else 6)  # six weeks of about thirty users
    assert needed_anchors(context, log, past) == past[-anchors:]
