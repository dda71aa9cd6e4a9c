"""An hour also lists anew whose shown list holds what is gone, and gives them what scoring everyone at that moment gives."""

from __future__ import annotations

from dataclasses import replace

import pytest
import shop

from features.contracts import (
    RECOMMENDATIONS,
    RECOMMENDATIONS_LATEST,
    RUNS,
    USER_ITEM_REPEATS,
    USER_PROFILES,
    USER_SEQUENCES,
)
from jobs import build_features
from jobs.build_features import build
from jobs.hourly import hourly
from jobs.score import score

pytestmark = [pytest.mark.spark, pytest.mark.slow]
FEATURES = (USER_SEQUENCES, USER_PROFILES, USER_ITEM_REPEATS)
LIST = ("user_id", "rank", "item_id", "score", "reason", "cold")


def text(moment) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def lists(context, where):
    return {tuple(r) for r in context.warehouse.read(RECOMMENDATIONS).where(where).select(*LIST).collect()}


@pytest.fixture(scope="module")
def night(listed_shop, tmp_path_factory):
    """A night, after which items of a few lists are withdrawn."""
    folder = tmp_path_factory.mktemp("shop")
    copy = shop.copied(listed_shop, folder)
    context = shop.context(copy.spark, shop.with_catalogue(copy.settings, folder))
    shown = context.warehouse.read(RECOMMENDATIONS_LATEST).where("user_id <> '*'").toPandas()
    holders = shown.groupby("item_id").user_id.nunique()
    gone = holders[(holders > 2) & (holders < 15)].index[:1]
    shop.catalogue(folder, gone)
    affected = set(shown[shown.item_id.isin(gone)].user_id)
    return context, set(gone), affected


@pytest.fixture(scope="module")
def everyone(night, tmp_path_factory):
    """The same hour where everybody is asked."""
    context, _, _ = night
    other = shop.copied(context, tmp_path_factory.mktemp("everyone"))
    known = context.warehouse.partition(USER_SEQUENCES, shop.NIGHT).select("user_id")
    real, build_features.stale_users = build_features.stale_users, lambda *_: known
    try:
        hourly(other_hour := replace(other, as_of=shop.HOUR, mode="hourly"))
    finally:
        build_features.stale_users = real
    return other_hour


@pytest.fixture(scope="module")
def hour(night, everyone):
    """Run after ``everyone`` has copied the tables."""
    context = replace(night[0], as_of=shop.HOUR, mode="hourly")
    hourly(context)
    return context


def test_those_who_acted_and_those_with_a_withdrawn_item_are_listed_anew_and_nobody_else(night, hour):
    _, gone, affected = night
    log = shop.events()
    acted = set(log[(log.when >= text(shop.NIGHT)) & (log.when < text(shop.HOUR))].who)
    assert acted and affected - acted, "nobody is stale only, the test would prove nothing"
    latest = hour.warehouse.read(RECOMMENDATIONS_LATEST).toPandas()
    hourly_users = set(latest[latest["mode"] == "hourly"].user_id)
    assert hourly_users == acted | affected | {"*"} < set(latest.user_id)
    assert not gone & set(latest.item_id)
    counts = hour.warehouse.read(RUNS).where("job = 'build_features' AND mode = 'hourly'").first().counts
    assert counts["stale_lists"] == len(affected)


def test_the_lists_are_those_of_scoring_everyone_at_that_moment(night, hour, everyone):
    mine = lists(hour, "mode = 'hourly'")
    users = {row[0] for row in mine}
    all_of_them = lists(everyone, "mode = 'hourly'")
    assert len({row[0] for row in all_of_them}) == 31 > len(users)
    assert mine == {row for row in all_of_them if row[0] in users}
    before = {row for row in lists(hour, "mode = 'nightly'") if row[0] in users}
    assert mine != before


@pytest.mark.soak  # test_jobs_hour.py compares the rows of those who acted with a full build's
def test_the_features_of_everyone_are_those_of_a_full_build(hour, everyone, tmp_path):
    full = shop.copied(hour, tmp_path)
    build(replace(full, mode="nightly"), backfill=False)
    for table in FEATURES:
        kept = {str(r) for r in hour.warehouse.partition(table, shop.HOUR).collect()}
        asked = {str(r) for r in everyone.warehouse.partition(table, shop.HOUR).collect()}
        whole = {str(r) for r in full.warehouse.partition(table, shop.HOUR).collect()}
        assert kept < asked and asked <= whole, table.name  # who came first in this hour had no night


@pytest.mark.soak  # test_jobs_chain.py makes an hour again
def test_the_same_hour_again_asks_the_same_users(hour):
    before = [lists(hour, "mode = 'hourly'"), hour.warehouse.read(RECOMMENDATIONS_LATEST).collect()]
    build(hour, backfill=False)
    score(hour)
    assert [lists(hour, "mode = 'hourly'"), hour.warehouse.read(RECOMMENDATIONS_LATEST).collect()] == before


@pytest.mark.soak  # what decides is tried in test_features_stale.py
def test_when_other_things_trend_everyone_who_was_shown_the_old_ones_is_asked(hour, tmp_path):
    other = shop.copied(hour, tmp_path, scoring={"trending_change": 0.0})
    build(other, backfill=False)
    asked = {r.user_id for r in other.warehouse.partition(USER_SEQUENCES, shop.HOUR).select("user_id").collect()}
    assert len(asked) == 30
