"""An hour reads what is new and gives the rows that a full build at that moment gives."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pandas as pd
import pytest
import shop

from conf.load import from_tree
from features.contracts import (
    ANCHOR_TABLES,
    EVENTS,
    ITEM_SUMS,
    ITEM_TEMPORAL,
    RUNS,
    USER_ITEM_REPEATS,
    USER_PROFILES,
    USER_SEQUENCES,
)
from jobs.build_features import build
from jobs.errors import DataQualityError
from jobs.ingest import ingest

pytestmark = [pytest.mark.spark, pytest.mark.slow]
LATE = slice(100, 900, 40)


def text(moment) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def delayed():
    """The log with its times of arrival: most at once, every second one 30 hours later."""
    log = shop.events()
    log["known"] = log.when
    slow = log.index[::2]
    log.loc[slow, "known"] = (pd.to_datetime(log.when[slow]) + pd.Timedelta(hours=30)).dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    return log


@pytest.fixture(scope="module")
def hour(spark, tmp_path_factory):
    """A night; then files with what happened since, and with what had happened long before. All of them know the future too."""
    folder = tmp_path_factory.mktemp("hour")
    log = delayed()
    at_night = (log.when < text(shop.NIGHT)) & (log.known <= text(shop.NIGHT))
    at_hour = (log.when < text(shop.HOUR)) & (log.known <= text(shop.HOUR))
    late = log[at_night].iloc[LATE]
    first = log.drop(late.index).iloc[::2]  # every other event, past and to come, is delivered before the night
    rest = log.drop([*late.index, *first.index])
    first = pd.concat([first, rest[rest.when < text(shop.NIGHT)]])
    (folder / "log").mkdir()
    first.to_csv(folder / "log" / "1.csv", index=False)
    tree = shop.settings(folder).resolved()
    tree["source"]["events"]["path"] = str(folder / "log")
    tree["source"]["events"]["columns"]["available_ts"] = "known"
    context = shop.context(spark, from_tree(tree))
    ingest(context)
    build(context, backfill=False)
    rest[rest.when >= text(shop.NIGHT)].to_csv(folder / "log" / "2.csv", index=False)
    late.to_csv(folder / "log" / "3.csv", index=False)
    then = replace(context, as_of=shop.HOUR, mode="hourly")
    ingest(then)
    build(then, backfill=False)
    new = log[at_hour & ~at_night | log.index.isin(late.index)]
    told_late = new[(new.when < text(shop.NIGHT)) & ~new.index.isin(late.index)]
    assert len(late) and len(told_late), "nothing came late, the test proves less"
    return then, set(new.who), len(new)


@pytest.fixture(scope="module")
def full(spark, hour, tmp_path_factory):
    """The same tables, and a whole night built at the hour's moment."""
    context, _, _ = hour
    folder = tmp_path_factory.mktemp("full")
    shutil.copytree(context.settings.warehouse, folder / "warehouse")
    tree = context.settings.resolved() | {"warehouse": str(folder / "warehouse")}
    night = shop.context(spark, from_tree(tree), shop.HOUR)
    build(night, backfill=False)
    return night


def rows(context, table, users=None):
    found = context.warehouse.partition(table, shop.HOUR).collect()
    return sorted(str(row) for row in found if users is None or row.user_id in users)


def test_only_what_is_new_is_counted_as_new(hour):
    context, _, new = hour
    runs = context.warehouse.read(RUNS).toPandas()
    built = runs[(runs.job == "build_features") & (runs["mode"] == "hourly")].iloc[0]
    assert dict(built["counts"])["new_events"] == new


@pytest.mark.parametrize("table", [USER_SEQUENCES, USER_PROFILES, USER_ITEM_REPEATS], ids=lambda t: t.name)
def test_the_users_who_acted_or_were_told_of_late_have_the_rows_of_a_full_build(hour, full, table):
    context, users, _ = hour
    assert {row.user_id for row in context.warehouse.partition(table, shop.HOUR).collect()} == users
    assert rows(context, table) == rows(full, table, users)


def test_every_item_has_the_row_of_a_full_build_to_the_last_byte(hour, full):
    context, _, _ = hour
    assert rows(context, ITEM_TEMPORAL) == rows(full, ITEM_TEMPORAL)
    night = context.warehouse.partition(ITEM_TEMPORAL, shop.NIGHT).drop("as_of_ts").collect()
    assert sorted(map(str, night)) != rows(context, ITEM_TEMPORAL)


def test_the_same_hour_again_gives_the_same_rows(hour):
    context, _, _ = hour
    before = [rows(context, table) for table in (USER_SEQUENCES, ITEM_TEMPORAL)]
    build(context, backfill=False)
    assert [rows(context, table) for table in (USER_SEQUENCES, ITEM_TEMPORAL)] == before


def test_an_hour_is_no_anchor_because_it_holds_only_who_came(hour):
    context, _, _ = hour
    built = context.warehouse.moments(*ANCHOR_TABLES)
    assert shop.NIGHT in built and context.as_of not in built


def test_the_sums_say_which_version_of_the_events_they_counted(hour):
    context, _, _ = hour
    versions = {row.events_version for row in context.warehouse.partition(ITEM_SUMS, shop.NIGHT).collect()}
    assert versions == {context.warehouse.version(EVENTS) - 1}


def test_events_that_were_changed_since_the_night_are_not_passed_over(hour, full):
    """A person's events were erased: sums of the night hold them still, so only a night may speak."""
    later = replace(full, as_of=shop.HOUR.replace(hour=9), mode="hourly")
    table = later.warehouse._delta(EVENTS)
    table.delete("user_id = 'u1'")
    with pytest.raises(DataQualityError, match=r"changed or deleted.*run jobs/nightly"):
        build(later, backfill=False)
