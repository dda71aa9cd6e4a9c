"""What may be shown, what is shown after nights, hours and rollbacks in any order, and who is turned away."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import shop
import stub_lists
import yaml
from pyspark.errors import PySparkException
from pyspark.sql import functions as F

from features.contracts import RECOMMENDATIONS, RECOMMENDATIONS_LATEST, RUNS
from jobs.errors import BusyError, DataQualityError, UsageError
from jobs.rollback import rollback
from jobs.score import score
from jobs.store import leases

pytestmark = [pytest.mark.spark, pytest.mark.slow]
ROOT = Path(__file__).parents[1]
NEXT = shop.NEXT


@pytest.fixture
def night(built_shop, tmp_path):
    return shop.copied(built_shop, tmp_path)


def run(context, moment, mode, salt="1", **kind):
    with stub_lists.scoring(salt, **kind):
        score(replace(context, as_of=moment, mode=mode))


def shown(context):
    return sorted(map(tuple, context.warehouse.read(RECOMMENDATIONS_LATEST).collect()))


def batches(context):
    """user -> (as_of, mode) of the one list that is shown."""
    rows = context.warehouse.read(RECOMMENDATIONS_LATEST).select("user_id", F.unix_micros("as_of_ts"), "mode").distinct().collect()
    assert len({r[0] for r in rows}) == len(rows), "somebody is shown a mix"
    return {r[0]: (r[1], r[2]) for r in rows}


def batch_id(context, mode, moment):
    rows = context.warehouse.read(RECOMMENDATIONS).where((F.col("mode") == mode) & (F.col("as_of_ts") == F.lit(moment)))
    return rows.first().batch_id


def only(condition, column, value):
    return lambda lists: lists.withColumn(column, F.when(F.expr(condition), F.lit(value)).otherwise(F.col(column)))


FAULTS = {
    "a score that is no number": (only("user_id = 'u1' AND rank = 2", "score", float("nan")), r"1 scores that are not finite"),
    "an infinite score": (only("user_id = 'u1' AND rank = 2", "score", float("inf")), r"1 scores that are not finite"),
    "a rank twice": (only("user_id = 'u1' AND rank = 2", "rank", 1), r"1 lists whose ranks are not 1 to at most 10"),
    "a rank that is left out": (lambda rows: rows.where("user_id <> 'u1' OR rank <> 3"), r"1 lists whose ranks are not 1"),
    "ranks from 0": (only("user_id = 'u1' AND rank = 1", "rank", 0), r"1 lists whose ranks are not 1"),
    "an item twice": (lambda rows: rows.withColumn("item_id", F.when(F.col("rank") < 3, "i1").otherwise(F.concat(F.lit("i1"), "rank"))), r"lists with an item twice"),
    "an unknown item": (only("user_id = 'u1' AND rank = 2", "item_id", "nothing"), r"1 items that may not be recommended"),
    "users without a list": (lambda rows: rows.where("user_id NOT IN ('u1', 'u2')"), r"no list for 2 of the 31 users .*scoring\.max_unserved = 0\.01"),
    "no list at all": (lambda rows: rows.where("false"), r"no list for 31 of the 31"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_batch_with_a_fault_is_not_shown_and_not_kept(built_shop, fault):
    spoil, told = FAULTS[fault]
    with pytest.raises(DataQualityError, match=told):
        run(built_shop, shop.NIGHT, "nightly", spoil=spoil)
    assert not built_shop.warehouse.exists(RECOMMENDATIONS) and not built_shop.warehouse.exists(RECOMMENDATIONS_LATEST)
    failed = built_shop.warehouse.read(RUNS).where("job = 'score'").orderBy(F.desc("started_ts")).first()
    assert failed.status == "failed" and "nothing was published" in failed.message


def test_a_night_far_from_what_is_shown_is_refused(night):
    run(night, shop.NIGHT, "nightly")
    before = shown(night)
    spoiled = {
        "max_coverage_shrink": lambda rows: rows.withColumn("item_id", F.concat(F.lit("i"), "rank")),
        "max_shrink": lambda rows: rows.where("user_id < 'u2'"),
    }
    loose = night.settings.scoring.model_copy(update={"max_unserved": 1.0})
    for name, spoil in spoiled.items():
        with pytest.raises(DataQualityError, match=rf"scoring\.{name} = 0\.5"):
            run(replace(night, settings=night.settings.model_copy(update={"scoring": loose})), NEXT, "nightly", spoil=spoil)
    strict = night.settings.model_copy(update={"scoring": loose.model_copy(update={"max_turnover": 0.3})})
    with pytest.raises(DataQualityError, match=r"places with an item .*scoring\.max_turnover = 0\.3"):
        run(replace(night, settings=strict), NEXT, "nightly", salt="2")
    assert shown(night) == before
    run(replace(night, settings=strict), NEXT, "nightly")  # the same order of items: all is well
    assert {moment for moment, _ in batches(night).values()} == {int(NEXT.timestamp() * 1e6)}


def test_an_hour_never_takes_a_newer_nights_list_away(night):
    run(night, shop.NIGHT, "nightly")
    run(night, NEXT, "nightly")
    before = shown(night)
    run(night, shop.HOUR, "hourly", "late")
    assert shown(night) == before
    assert not night.warehouse.read(RECOMMENDATIONS).where("mode = 'hourly'").isEmpty()


def test_a_batch_is_shown_again_and_nights_and_hours_go_on(night):
    run(night, shop.NIGHT, "nightly")
    first = shown(night)
    run(night, shop.HOUR, "hourly")
    second = shown(night)
    run(night, NEXT, "nightly", "bad")
    run(night, NEXT + timedelta(hours=6), "hourly", "bad")
    bad = shown(night)
    record = night.warehouse.read(RECOMMENDATIONS).count()
    for (mode, moment), expected in {("hourly", shop.HOUR): second, ("nightly", shop.NIGHT): first}.items():
        rollback(night, batch_id(night, mode, moment))
        assert shown(night) == expected != bad
    assert night.warehouse.read(RECOMMENDATIONS).count() == record
    told = night.warehouse.read(RUNS).where("job = 'rollback'").orderBy(F.desc("started_ts")).first()
    assert (told.status, told.model_version, told.mode) == ("ok", "1", "nightly") and told.counts["rows"] == len(first)
    # The night that is shown may be made anew, though a later one is on record; then an hour, then the later night.
    run(night, shop.NIGHT, "nightly", "2")
    assert shown(night) != first and set(batches(night).values()) == {(int(shop.NIGHT.timestamp() * 1e6), "nightly")}
    run(night, NEXT + timedelta(hours=6), "hourly", "2")
    assert {mode for _, mode in batches(night).values()} == {"nightly", "hourly"}
    run(night, NEXT, "nightly", "2")
    moments = {moment for moment, _ in batches(night).values()}
    assert moments == {int(m.timestamp() * 1e6) for m in (NEXT, NEXT + timedelta(hours=6))}


def test_a_batch_that_is_not_on_record_is_refused_and_the_newest_are_named(night):
    run(night, shop.NIGHT, "nightly")
    with pytest.raises(UsageError, match=rf"the newest there: {batch_id(night, 'nightly', shop.NIGHT)} \(nightly, 2024-02-12T00:00Z"):
        rollback(night, "0" * 16)
    with pytest.raises(UsageError, match="is not a batch_id"):
        rollback(night, "1' OR '1'='1")


class DeltaConcurrentModificationException(PySparkException):
    """Named as Delta's is."""


def test_a_refused_commit_is_made_anew_but_not_for_ever(monkeypatch):
    monkeypatch.setattr(leases, "_WAIT", lambda state: 0)
    calls = []

    def refused():
        calls.append(1)
        if len(calls) < 3:
            raise DeltaConcurrentModificationException("changed")
        return "made"

    assert leases.retried(RUNS, refused) == "made" and len(calls) == 3
    calls[:] = [0] * -100
    with pytest.raises(BusyError, match="table runs was changed by others during each of 4 attempts"):
        leases.retried(RUNS, lambda: (_ for _ in ()).throw(DeltaConcurrentModificationException("changed")))
    with pytest.raises(ZeroDivisionError):
        leases.retried(RUNS, lambda: 1 / 0)


def test_the_second_of_two_equal_runs_exits_75_and_leaves_all_as_it_is(night, tmp_path):
    """Two processes; the first holds the tables until the second has gone."""
    run(night, shop.NIGHT, "nightly")
    before = shown(night)
    file = tmp_path / "shop.yaml"
    file.write_text(yaml.safe_dump(night.settings.resolved()))
    command = [sys.executable, str(ROOT / "jobs" / "score.py"), "--settings", str(file), "--as-of", "2024-02-12T00:00:00Z"]
    with night.warehouse.lease([RECOMMENDATIONS]):
        done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
    assert done.returncode == 75, done.stderr[-2000:]
    assert "table recommendations is being written by another run" in done.stderr
    assert shown(night) == before and night.warehouse.read(RUNS).where("job = 'score' AND status = 'ok'").count() == 1
