"""The generated worlds of worlds_spark.py: the same however they are partitioned, and each planted effect is there."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import worlds_spark as worlds
from pyspark.sql import functions as F

from features.contracts import EVENTS, ITEMS

pytestmark = pytest.mark.spark
N, USERS, ITEMS_N, DAYS = 50_000, 500, 1_000, 28


def log(spark, seed=0, **effects) -> pd.DataFrame:
    """Events joined with their items; ``at`` is days since START."""
    events = worlds.events(spark, N, USERS, ITEMS_N, DAYS, seed, **effects)
    items = worlds.items(spark, ITEMS_N, DAYS, seed, **effects).select(
        "item_id", "release_ts", "available_until", "category"
    )
    days = ((F.unix_micros("event_ts") - worlds.START_US) / worlds.DAY_US).alias("at")
    age = ((F.unix_micros("event_ts") - F.unix_micros("release_ts")) / worlds.DAY_US).alias("age")
    left = ((F.unix_micros("available_until") - F.unix_micros("event_ts")) / worlds.DAY_US).alias("left")
    joined = events.join(F.broadcast(items), "item_id").select(*EVENTS.column_names, "category", days, age, left)
    frame = joined.toPandas()
    frame["number"] = frame.item_id.str[1:].astype(int)
    return frame


@pytest.fixture(scope="module")
def plain(spark):
    return log(spark)


def test_both_tables_have_the_columns_of_the_contracts(spark):
    for made, table in ((worlds.events(spark, 10, 3, 4, 5, 0), EVENTS), (worlds.items(spark, 4, 5, 0), ITEMS)):
        assert [(f.name, f.dataType.simpleString().upper()) for f in made.schema] == [
            (k.name, k.type) for k in table.columns
        ]


@pytest.mark.parametrize(
    "effects", [{}, worlds.LIVELY | {"late": 0.1, "duplicates": 0.1, "hot_user": 99, "hot_item": 0.5}]
)
def test_rows_do_not_depend_on_the_partitions(spark, effects):
    one, five = (worlds.events(spark, N, USERS, ITEMS_N, DAYS, 0, partitions, **effects) for partitions in (1, 5))
    assert one.rdd.getNumPartitions() != five.rdd.getNumPartitions()
    assert one.exceptAll(five).isEmpty() and five.exceptAll(one).isEmpty()
    other = worlds.events(spark, N, USERS, ITEMS_N, DAYS, 1, **effects)
    assert (
        one.select("user_id", "item_id", "event_ts").intersect(other.select("user_id", "item_id", "event_ts")).isEmpty()
    )


def test_nothing_is_planted_unless_asked(plain):
    assert len(plain) == plain.event_id.nunique() == N
    assert plain.user_id.nunique() == USERS and plain.item_id.nunique() == ITEMS_N
    assert plain["at"].between(0, DAYS, inclusive="left").all() and (plain.age > 0).all()
    assert (plain.available_ts == plain.event_ts).all()
    for column, values in (("user_id", USERS), ("item_id", ITEMS_N)):
        counts = plain[column].value_counts()
        assert counts.max() < 1.8 * N / values
    assert np.bincount((plain["at"] * 24 % 24).astype(int)).max() < 1.1 * N / 24


def test_popular_items_and_busy_users(spark):
    skewed = log(spark, popularity=0.8, activity=0.5)
    assert (skewed.number < ITEMS_N / 100).mean() == pytest.approx(0.01**0.2, abs=0.02)
    busy = skewed.user_id.value_counts(normalize=True)
    assert busy.head(USERS // 100).sum() == pytest.approx(0.1, abs=0.02)


def test_new_items_are_taken_more_and_none_before_its_release(spark, plain):
    fresh = log(spark, release_decay=5.0)
    assert (fresh.age >= 0).all()
    assert (fresh.age < 7).mean() > 0.7 > 5 * (plain.age < 7).mean()


def test_some_items_rise_and_some_fall(spark):
    moving = log(spark, trends=True)
    late = moving["at"] > DAYS / 2
    share = late.groupby(moving.number % 3).mean()
    assert share[1] > 0.65 and share[2] < 0.35 and abs(share[0] - 0.5) < 0.03


def test_users_have_their_hour_and_their_weekday(spark, plain):
    def own(frame: pd.DataFrame, period: pd.Series) -> float:
        """Share of each user's events that fall on the user's commonest hour or weekday."""
        counts = frame.groupby(["user_id", period.rename("period")]).size()
        return counts.groupby("user_id").max().sum() / len(frame)

    habits = log(spark, daily=0.5, weekly=0.5)
    for period in (lambda f: (f["at"] * 24 % 24).astype(int), lambda f: (f["at"] % 7).astype(int)):
        assert own(habits, period(habits)) > 0.5 > 0.3 > own(plain, period(plain))


def test_items_have_their_hour(spark, plain):
    def strength(frame: pd.DataFrame) -> float:
        turned = np.exp(2j * np.pi * (frame["at"] % 1))
        return turned.groupby(frame.item_id).mean().abs().mean()

    assert strength(log(spark, item_hours=True)) > 0.3 > 2 * strength(plain)


def test_interest_moves_from_one_category_to_another(spark):
    drifting = log(spark, drift=0.8)
    halves = [drifting[drifting["at"] < DAYS / 4], drifting[drifting["at"] > DAYS * 3 / 4]]
    first, last = (h.groupby("user_id").category.agg(lambda x: x.mode()[0]) for h in halves)
    assert (first != last).mean() > 0.7
    for half in halves:
        assert half.groupby("user_id").category.agg(lambda x: (x == x.mode()[0]).mean()).mean() > 0.6


def test_items_vanish_and_are_not_taken_afterwards(spark):
    churned = log(spark, churn=True, release_decay=8.0)
    assert churned.left.notna().any() and (churned.left.dropna() > 0).all() and (churned.age >= 0).all()


def test_favourites_come_back_at_regular_gaps(spark):
    habits = log(spark, repeats=0.3)
    favourite = habits[habits.event_id.str[1:].astype(int) < 0.3 * N]
    assert favourite.user_id.nunique() == 100
    gaps = (
        favourite.sort_values("event_ts")
        .groupby(["user_id", "item_id"])["at"]
        .agg(lambda x: x.diff().std() / x.diff().mean())
    )
    assert gaps.median() < 0.1


def test_bots_act_like_clocks(spark):
    visited = log(spark, bots=3, bot_events=0.2)
    bots = visited[visited.user_id.isin([f"u{k}" for k in range(USERS - 3, USERS)])]
    assert len(bots) == pytest.approx(0.2 * N, rel=0.02)
    spread = visited.sort_values("event_ts").groupby("user_id").event_ts.agg(lambda x: x.diff().std() / x.diff().mean())
    assert (spread > 0.5).sum() == USERS - 3 and (spread < 1e-6).sum() == 3


def test_late_and_second_deliveries(spark):
    faulty = log(spark, late=0.2, duplicates=0.1)
    late = (faulty.available_ts - faulty.event_ts) > pd.Timedelta(minutes=2)
    assert late.mean() == pytest.approx(0.2, abs=0.02)
    again = faulty.event_id.duplicated(keep=False)
    assert faulty.event_id.duplicated().mean() == pytest.approx(0.09, abs=0.01)  # a copy of a copy is the only one left
    assert (faulty[again].drop(columns="available_ts").groupby("event_id").nunique() <= 1).all(axis=None)


def test_one_user_and_one_item_can_be_hot(spark):
    hot = log(spark, hot_user=10_000, hot_item=0.5)
    assert (hot.user_id == "u0").sum() == pytest.approx(10_000 + 40_000 / USERS, abs=60)
    assert (hot[hot.user_id != "u0"].item_id == "i0").mean() == pytest.approx(0.5, abs=0.02)
