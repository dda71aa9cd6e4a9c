"""Three nights judged on real tables, with lists made by hand: every number against plain Python."""

from __future__ import annotations

from datetime import timedelta
from itertools import combinations
from math import log2

import numpy as np
import pandas as pd
import pytest
import shop
from deltalake import DeltaTable
from pyspark.sql import functions as F

from features.contracts import (
    EVALUATIONS,
    EVENTS,
    ITEM_TEMPORAL,
    ITEMS,
    RECOMMENDATIONS,
    RUNS,
    USER_ITEM_REPEATS,
    USER_PROFILES,
)
from features.item_sums import item_sums
from features.item_temporal import item_temporal
from features.repeats import user_item_repeats
from features.segments import HEAD, TAIL
from jobs.errors import DataQualityError
from jobs.evaluate import evaluate
from jobs.store.run_log import recorded
from jobs.store.table_io import schema

pytestmark = [pytest.mark.spark, pytest.mark.slow]
WEEK = timedelta(days=7)
NIGHTS = [shop.NIGHT, shop.NIGHT - WEEK, shop.NIGHT - 2 * WEEK]
LATER = shop.NIGHT + timedelta(hours=12)
OPEN = shop.NIGHT + timedelta(days=2)
USERS, KINDS = 30, 40


#: Items of the catalogue that were young at the newest night; all others were there from the start.
YOUNG = {"i1": timedelta(minutes=30), "i2": timedelta(hours=12), "i3": timedelta(days=3)}


def log():
    """(user, item, when) of the whole log; nobody takes what is not released."""
    events = shop.events()
    every = zip(events.who, events.what, pd.to_datetime(events.when).dt.to_pydatetime(), strict=True)
    return [(u, i, when) for u, i, when in every if when >= released(i)]


def released(item):
    return shop.NIGHT - YOUNG[item] if item in YOUNG else shop.START


def category(item):
    return f"c{int(item[1:]) % 3}"


def tables(spark):
    """The log and the catalogue as ingest would leave them."""
    events = [(f"e{k}", u, i, "purchase", when, when, None, None, "s") for k, (u, i, when) in enumerate(log())]
    items = []
    for item in (f"i{k}" for k in range(KINDS)):
        items.append((item, released(item), True, None, None, None, category(item), None, None, None))
    return spark.createDataFrame(events, schema(EVENTS)), spark.createDataFrame(items, schema(ITEMS))


def profiles(spark):
    """Of each user's profile only what evaluation reads: whether there were events in the last 28 days."""
    users = {(night, user) for user, _, when in log() for night in NIGHTS if when < night}
    lately = {(night, user) for user, _, when in log() for night in NIGHTS if night - 4 * WEEK <= when < night}
    counts = [(*key, int(key in lately)) for key in sorted(users)]
    frame = spark.createDataFrame(counts, "as_of_ts TIMESTAMP, user_id STRING, user_events_28d BIGINT")
    blank = {k.name: F.array() if k.type.startswith("ARRAY") else F.lit(0) for k in USER_PROFILES.columns}
    known = blank | {name: F.col(name) for name in frame.columns}
    return frame.select(*[known[k.name].cast(k.type).alias(k.name) for k in USER_PROFILES.columns])


def list_of(user, moment, mode="nightly"):
    """Ten items: what is far down is what the user takes anyway, in an order of the moment's own."""
    random = np.random.default_rng([int(user[1:]), int(moment.timestamp()), len(mode)])
    own = [(int(user[1:]) * 7 + k) % KINDS for k in range(4)]
    return [f"i{k}" for k in dict.fromkeys([*random.permutation(KINDS)[:5].tolist(), *random.permutation(own).tolist(), *range(KINDS)])][:10]


def rows(moment, mode, users):
    end = moment + WEEK
    return [
        (moment, user, place, item, 1.0, "by hand", mode, False, "b", "7", end)
        for user in users
        for place, item in enumerate(list_of(user, moment, mode), 1)
    ]


EVERYBODY = [f"u{k}" for k in range(USERS)]
LISTS = [(night, "nightly", EVERYBODY) for night in NIGHTS] + [(LATER, "hourly", EVERYBODY[::2])]


@pytest.fixture(scope="module")
def judged(spark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged")
    settings = shop.settings(folder, evaluation={"windows": 4, "draws": 200})
    context = shop.context(spark, settings)
    events, items = (frame.coalesce(1).persist() for frame in tables(spark))
    found = {
        EVENTS: events,
        ITEMS: items,
        ITEM_TEMPORAL: item_temporal(item_sums(events, NIGHTS), items, NIGHTS),
        USER_PROFILES: profiles(spark),
        USER_ITEM_REPEATS: user_item_repeats(events, NIGHTS, settings),
    }
    for table, frame in found.items():
        context.warehouse.append(table, frame)
    made = [row for batch in LISTS for row in rows(*batch)]
    context.warehouse.append(RECOMMENDATIONS, spark.createDataFrame(made, schema(RECOMMENDATIONS)))
    evaluate(context)
    written = DeltaTable(context.warehouse.path(EVALUATIONS)).to_pandas()
    return context, written.set_index(["as_of_ts", "windows", "recommender", "segment", "metric"]).sort_index()


def ndcg(shown, true):
    gain = sum(1 / log2(place + 2) for place, item in enumerate(shown[:10]) if item in true)
    return gain / sum(1 / log2(place + 2) for place in range(min(10, len(true))))


def truth(night):
    """user -> (true items, first visit, number of events before), of those with a past who came."""
    past, took = {}, {}
    for user, item, when in log():
        if when < night:
            past[user] = past.get(user, 0) + 1
        elif when < night + WEEK:
            took.setdefault(user, []).append((when, item))
    return {u: ({i for _, i in t}, min(t)[0], past[u]) for u, t in took.items() if u in past}


def served(user, visit, night):
    """The newest list at the visit, of those that LISTS names."""
    known = [(moment, mode) for moment, mode, users in LISTS if night <= moment <= visit and user in users]
    return list_of(user, *max(known))


def test_each_window_is_the_mean_over_its_users(judged):
    for night in NIGHTS:
        expected = [ndcg(list_of(user, night), true) for user, (true, _, _) in truth(night).items()]
        row = judged[1].loc[(night, 1, "kairos", "all", "ndcg@10")]
        assert (row.metric_value, row.users) == (pytest.approx(np.mean(expected)), len(expected))
        assert row.metric_low < row.metric_value < row.metric_high


def test_as_served_is_the_newest_list_at_the_visit(judged):
    known = truth(shop.NIGHT)
    expected = [ndcg(served(user, visit, shop.NIGHT), true) for user, (true, visit, _) in known.items()]
    newer = [served(user, visit, shop.NIGHT) != list_of(user, shop.NIGHT) for user, (_, visit, _) in known.items()]
    at = judged[1].loc[(shop.NIGHT, 1, "kairos as served", "all")]
    assert 0 < sum(newer) < len(newer), "the test would prove nothing"
    assert at.loc["newer_list"].metric_value == pytest.approx(np.mean(newer))
    assert at.loc["ndcg@10"].metric_value == pytest.approx(np.mean(expected))


def test_hour_by_hour_each_is_judged_by_what_was_on_show(judged):
    hours = {}
    for user, item, when in sorted(log(), key=lambda row: row[2]):
        if shop.NIGHT <= when < shop.NIGHT + WEEK and user in truth(shop.NIGHT):
            hours.setdefault((user, when.replace(minute=0, second=0, microsecond=0)), []).append((when, item))
    expected, gained = {"kairos": [], "kairos as served": []}, 0
    for (user, _), visit in hours.items():
        true, shown = {item for _, item in visit}, served(user, visit[0][0], shop.NIGHT)
        expected["kairos"].append(ndcg(list_of(user, shop.NIGHT), true))
        expected["kairos as served"].append(ndcg(shown, true))
        gained += shown != list_of(user, shop.NIGHT)
    assert 0 < gained < len(hours), "the test would prove nothing"
    assert len(hours) > len({user for user, _ in hours}), "some come in several hours"
    for who, values in expected.items():
        row = judged[1].loc[(shop.NIGHT, 1, who, "hour by hour", "ndcg@10")]
        assert (row.metric_value, row.users) == (pytest.approx(np.mean(values)), len(hours))
    assert "hour by hour" not in judged[1].loc[(NIGHTS[1], 1)].index.get_level_values("segment"), "nothing newer than that night's"


def test_windows_together_are_the_mean_over_all_lists(judged):
    each = [judged[1].loc[(night, 1, "kairos", "all", "ndcg@10")] for night in NIGHTS]
    row = judged[1].loc[(shop.NIGHT, 3, "kairos", "all", "ndcg@10")]
    assert row.users == sum(one.users for one in each)
    assert row.metric_value == pytest.approx(np.average([one.metric_value for one in each], weights=[one.users for one in each]))
    assert row.metric_high - row.metric_low < max(one.metric_high - one.metric_low for one in each)


def test_users_fall_into_segments_of_history_and_of_the_hour_of_the_visit(judged):
    parts = {}
    for user, (true, visit, past) in truth(NIGHTS[2]).items():
        value = ndcg(list_of(user, NIGHTS[2]), true)
        length = "1-4" if past < 5 else "5-19" if past < 20 else "20-99" if past < 100 else "100 +"
        for name in (f"history {length}", f"visit at {visit.hour:02d} h"):
            parts.setdefault(name, []).append(value)
    found = judged[1].loc[(NIGHTS[2], 1, "kairos")].xs("ndcg@10", level="metric")
    found = found[found.index.str.startswith(("history", "visit"))]
    assert len(parts) > 8
    assert found.metric_value.to_dict() == pytest.approx({name: np.mean(values) for name, values in parts.items()})
    assert found.users.to_dict() == {name: len(values) for name, values in parts.items()}


def test_items_split_the_truth_by_age_and_by_popularity(judged):
    context, found = judged
    items = {row.item_id: row for row in context.warehouse.partition(ITEM_TEMPORAL, shop.NIGHT).collect()}
    sold = sorted((row.item_decayed_28d for row in items.values() if row.item_decayed_28d > 0), reverse=True)
    head = {k for k, row in items.items() if row.item_decayed_28d > sold[-(-len(sold) // 5) - 1 + (len(sold) % 5 == 0)]}
    assert 0 < len(head) <= len(sold) / 5
    of = {
        HEAD: lambda i: i in head,
        TAIL: lambda i: i not in head,
        "item < 1 h": lambda i: i == "i1",
        "item < 1 d": lambda i: i == "i2",
        "item < 7 d": lambda i: i == "i3",
        "item 7 d +": lambda i: i not in YOUNG,
    }
    for segment, belongs in of.items():
        parts = {u: kept for u, (true, _, _) in truth(shop.NIGHT).items() if (kept := {i for i in true if belongs(i)})}
        row = found.loc[(shop.NIGHT, 1, "kairos", segment, "ndcg@10")]
        assert row.users == len(parts)
        assert row.metric_value == pytest.approx(np.mean([ndcg(list_of(u, shop.NIGHT), kept) for u, kept in parts.items()]))


def test_a_lead_is_the_difference_of_means_and_its_interval_is_paired(judged):
    found = judged[1].loc[(shop.NIGHT, 3)].xs("all", level="segment")
    own = found.loc["kairos"]
    assert own.kairos_lead.isna().all()
    for who in ("popularity 7d", "personal frequency 90d", "kairos as served"):
        row, mine = found.loc[(who, "ndcg@10")], own.loc["ndcg@10"]
        assert row.kairos_lead == pytest.approx(mine.metric_value - row.metric_value)
        assert row.kairos_lead_low <= row.kairos_lead <= row.kairos_lead_high
        assert (row.p_value < 0.05) == (not row.kairos_lead_low <= 0 <= row.kairos_lead_high)
    assert found.loc[("personal frequency 90d", "ndcg@10")].kairos_lead < 0, "lists by hand put noise first"


def test_what_is_shown_is_counted_over_all_lists(judged):
    shown = [item for user in truth(shop.NIGHT) for item in list_of(user, shop.NIGHT)]
    counts = sorted(shown.count(f"i{k}") for k in range(KINDS))
    spread = sum(abs(a - b) for a in counts for b in counts) / (2 * KINDS * sum(counts))
    at = judged[1].loc[(shop.NIGHT, 1, "kairos", "all")].metric_value
    assert at["coverage@10"] == pytest.approx(len(set(shown)) / KINDS)
    assert at["gini@10"] == pytest.approx(spread)
    month = [(user, item) for user, item, when in log() if shop.NIGHT - 4 * WEEK <= when < shop.NIGHT]
    active, takers = len({u for u, _ in month}), {i: len({u for u, x in month if x == i}) for _, i in month}
    each = [[takers.get(i, 0) / active for i in list_of(u, shop.NIGHT)] for u in truth(shop.NIGHT)]
    assert at["popularity@10"] == pytest.approx(np.mean(each))
    assert at["novelty@10"] == pytest.approx(-np.log2(np.maximum(each, 1 / active)).mean())
    pairs = [combinations(map(category, list_of(u, shop.NIGHT)), 2) for u in truth(shop.NIGHT)]
    assert at["diversity@10"] == pytest.approx(np.mean([np.mean([a != b for a, b in each]) for each in pairs]))


def test_a_window_without_lists_is_named_with_the_command_that_makes_them(judged):
    (note,) = [row.message for row in judged[0].warehouse.read(RUNS).where("job = 'evaluate' AND status = 'ok'").collect()]
    assert f"{shop.NIGHT - 3 * WEEK:%Y-%m-%d}" in note
    assert "jobs/nightly.py" in note


def test_what_cannot_be_judged_is_refused_with_what_is_missing(judged, spark):
    context = shop.context(spark, judged[0].settings, OPEN)
    with pytest.raises(DataQualityError, match="no nightly lists"):
        evaluate(context)
    context.warehouse.append(RECOMMENDATIONS, spark.createDataFrame(rows(OPEN, "nightly", ["u1"]), schema(RECOMMENDATIONS)))
    with pytest.raises(DataQualityError, match="has not closed"):
        evaluate(context)
    with recorded(context.warehouse, "ingest", None, OPEN + WEEK):
        pass  # all that happened up to the end of the window was taken in, and nothing happened after it
    with pytest.raises(DataQualityError, match="item_temporal"):
        evaluate(context)
