"""Small files joined, unneeded ones deleted, old rows deleted: what is needed stays, by value, for readers without Spark too."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import shop
import stub_lists
from deltalake import DeltaTable
from filelock import FileLock

from conf.load import from_tree
from features.contracts import ITEM_TEMPORAL, RECOMMENDATIONS, RECOMMENDATIONS_LATEST, RUNS, TABLES, USER_SEQUENCES
from jobs.errors import BusyError, UsageError
from jobs.hourly import hourly
from jobs.maintain import Care, maintain
from jobs.score import score

pytestmark = [pytest.mark.spark, pytest.mark.slow]
LISTS = ("recommendations_latest", "recommendations", "events", "runs")
AFTER = shop.NEXT + timedelta(hours=6)


@pytest.fixture(scope="module")
def listed(built_shop, tmp_path_factory):
    """Lists of two nights and of the hour in between."""
    context = shop.copied(built_shop, tmp_path_factory.mktemp("listed"))
    for salt, (moment, mode) in enumerate([(shop.NIGHT, "nightly"), (shop.HOUR, "hourly"), (shop.NEXT, "nightly")]):
        with stub_lists.scoring(str(salt)):
            score(replace(context, as_of=moment, mode=mode))
    return replace(context, as_of=AFTER)


@pytest.fixture
def copy(listed, tmp_path):
    return replace(shop.copied(listed, tmp_path), as_of=AFTER)


def with_settings(context, **groups):
    return replace(shop.context(context.spark, from_tree(context.settings.resolved() | groups)), as_of=context.as_of)


def tables(context):
    return [table for table in TABLES.values() if context.warehouse.exists(table) and table != RUNS]


def rows(context):
    return {t.name: sorted(map(str, context.warehouse.read(t).collect())) for t in tables(context)}


def outside(context):
    """What a reader without Spark sees of the lists, and the protocol of every table."""
    path = context.warehouse.path
    protocols = {DeltaTable(path(table)).protocol().min_reader_version for table in [*tables(context), RUNS]}
    latest = DeltaTable(path(RECOMMENDATIONS_LATEST)).to_pandas().sort_values(["user_id", "rank"])
    return latest[["user_id", "rank", "item_id", "score"]].values.tolist(), protocols


def files(context, table):
    return len(list(Path(context.warehouse.path(table)).rglob("*.parquet")))


def told(context):
    return context.warehouse.read(RUNS).where("job LIKE 'maintain%'").collect()


def test_small_files_are_joined_and_no_row_changes(copy):
    before, seen = rows(copy), outside(copy)
    many = len(DeltaTable(copy.warehouse.path(RUNS)).file_uris())
    maintain(replace(copy, dry_run=True), Care.optimize, names=LISTS)
    assert told(copy) == []
    maintain(copy, Care.optimize, names=LISTS)
    assert rows(copy) == before and outside(copy) == seen and seen[1] == {1}
    assert told(copy)[0].counts["runs"] == many > 5
    assert len(DeltaTable(copy.warehouse.path(RUNS)).file_uris()) == 2  # the joined one, and the row of this run


def test_files_that_no_version_needs_are_deleted_and_younger_ones_are_not(copy):
    before, seen = rows(copy), outside(copy)
    there = files(copy, RECOMMENDATIONS_LATEST)
    maintain(copy, Care.vacuum, names=LISTS[:1])
    assert files(copy, RECOMMENDATIONS_LATEST) == there  # all are younger than a week
    with pytest.raises(UsageError, match=r"below maintenance\.vacuum_retention = 7 days"):
        maintain(copy, Care.vacuum, timedelta(days=6, hours=23))
    time.sleep(1.1)
    soon = with_settings(copy, maintenance={"vacuum_retention": "1s"})
    maintain(replace(soon, dry_run=True), Care.vacuum, names=LISTS[:1])
    assert files(copy, RECOMMENDATIONS_LATEST) == there
    maintain(soon, Care.vacuum, names=LISTS[:1])
    assert files(copy, RECOMMENDATIONS_LATEST) < there
    assert rows(copy) == before and outside(copy) == seen


SHORT = {"horizon": "1h", "training": {"anchors": 1, "anchor_every": "1h"}, "maintenance": {"features": "1h", "recommendations": "1h"}}
KEPT = {
    "since the newest night": ({}, True),
    "for training": ({"training": {"anchors": 2, "anchor_every": "30h"}}, False),
    "for training, because labels are few": ({"training": {"enough_users": 1_000_000}}, False),
    "not for training, which has labels enough": ({"training": {"enough_users": 1}}, True),
    "for judging": ({"evaluation": {"windows": 40}}, False),
}


@pytest.mark.parametrize("why", KEPT)
def test_old_rows_are_deleted_unless_they_are_needed(copy, why):
    changes, deleted = KEPT[why]
    context = with_settings(copy, **(SHORT | {"evaluation": {"windows": 1}} | changes))
    everything = {t: context.warehouse.moments(t) for t in (USER_SEQUENCES, ITEM_TEMPORAL, RECOMMENDATIONS)}
    asked = [table.name for table in everything]
    maintain(replace(context, dry_run=True), Care.retain, names=asked)
    assert {t: context.warehouse.moments(t) for t in everything} == everything
    maintain(context, Care.retain, names=asked)
    for table, moments in everything.items():
        lists_too = deleted or (why.startswith("for training") and table == RECOMMENDATIONS)
        assert context.warehouse.moments(table) == ({m for m in moments if m >= shop.NEXT} if lists_too else moments), table.name


def test_an_hour_goes_on_after_all_of_it(copy):
    context = with_settings(copy, **SHORT, evaluation={"windows": 1})
    maintain(context, Care.retain)
    maintain(context, Care.optimize, names=["events", "items"])
    with stub_lists.scoring("0"):
        hourly(replace(context, as_of=AFTER + timedelta(hours=1)))
    assert AFTER + timedelta(hours=1) in context.warehouse.moments(RECOMMENDATIONS, USER_SEQUENCES)


def test_a_table_that_is_being_written_is_left_alone(copy):
    lock = Path(copy.settings.warehouse) / ".locks" / "events.lock"
    with FileLock(lock), pytest.raises(BusyError, match="table events is being written"):
        maintain(copy, Care.optimize, names=["events"])
    with pytest.raises(UsageError, match="'event' is no table; there are events"):
        maintain(copy, Care.optimize, names=["event"])
