"""Raw rows become events or are rejected with every reason; none is lost, and the first delivery of an event stays."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from pyspark.sql import functions as F

from conf.sources import EventSource, Ingest, ItemSource
from features.contracts import EVENTS, ITEMS
from features.events import (
    complete_items,
    first_available,
    split,
    split_items,
    validate_events,
    validate_items,
)
from features.raw_values import epoch_unit, timestamp
from features.windows import to_micros
from jobs.store.table_io import schema

pytestmark = pytest.mark.spark
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
NOON_US = to_micros(NOON)


def source(**columns: str) -> EventSource:
    return EventSource.model_validate(
        {"path": "-", "columns": {"user_id": "u", "item_id": "i", "event_ts": "t"} | columns}
    )


def check(spark, rows, kinds, ingest=None, **columns):
    raw = spark.createDataFrame(rows, kinds)
    return validate_events(raw, source(**columns), ingest or Ingest()).withColumn("us", F.unix_micros("event_ts"))


UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": None}


def epochs(us: int) -> dict[tuple[str, str], list]:
    """(Spark type, unit) -> the ways in which a source may write this moment as an epoch number."""
    found: dict[tuple[str, str], list] = {}
    for unit, size in UNITS.items():
        number = us * 1_000 if size is None else us // size
        found["bigint", unit] = [number]
        found["double", unit] = [float(number)]
        found["decimal(20,0)", unit] = [Decimal(number)]
        found["string", unit] = [str(number), f" {number} ", f"{number}.0", f"{number}."]
    found["int", "s"] = [us // 1_000_000]
    found["double", "s"] += [us / 1e6]
    found["string", "s"] += [f"{us / 1e6:.6f}", f"{us // 1_000_000:.7e}".replace("e+09", "E9")]
    return found


@pytest.mark.parametrize(("kind", "unit"), sorted(epochs(NOON_US)))
def test_an_epoch_number_is_read_in_every_unit_and_type(spark, kind, unit):
    written = epochs(NOON_US)[kind, unit]
    raw = spark.createDataFrame([(w,) for w in written], f"t {kind}")
    found = raw.select(F.unix_micros(timestamp(raw, "t")), epoch_unit(raw, "t")).collect()
    assert [tuple(row) for row in found] == [(NOON_US, unit)] * len(written)


def test_numbers_of_any_size_are_read_or_refused_and_never_end_the_job(spark):
    sizes = [0, -1, 2**63 - 1, -(2**63), 10**11 - 1, 10**11, 10**14, 10**17]
    raw = spark.createDataFrame([(n,) for n in sizes], "t bigint")
    assert raw.select(timestamp(raw, "t").alias("t")).where("t IS NOT NULL").count() == len(sizes)
    raw = spark.createDataFrame([(x,) for x in (math.nan, math.inf, -math.inf, 1e300, -1e19)], "t double")
    assert raw.select(timestamp(raw, "t").alias("t")).where("t IS NOT NULL").count() == 0


def test_nanoseconds_keep_their_microsecond(spark):
    raw = spark.createDataFrame([(1_709_294_400_123_456_789,)], "t bigint")
    assert raw.select(F.unix_micros(timestamp(raw, "t"))).first()[0] == 1_709_294_400_123_456


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("string", "2024-03-01T12:00:00Z"),
        ("string", " 2024-03-01 12:00:00 "),
        ("string", "2024-03-01T14:00:00+02:00"),
        ("timestamp", NOON),
        ("timestamp_ntz", NOON.replace(tzinfo=None)),
    ],
)
def test_a_moment_is_read_whatever_its_type(spark, kind, value):
    row = check(spark, [("a", "b", value)], f"u string, i string, t {kind}").first()
    assert (row.us, row.reasons) == (NOON_US, [])


def test_text_without_a_date_is_no_moment_and_never_a_time_of_today(spark):
    rows = [("a", "b", t) for t in ("12:00", "T12:00:00", "now", "today", "epoch", "20240301", "01/03/2024", "2024-02-30")]
    found = check(spark, rows, "u string, i string, t string").collect()
    assert [row.reasons for row in found] == [["event_ts_unreadable"]] * len(rows)


def test_a_date_is_its_midnight_in_utc(spark):
    row = check(spark, [("a", "b", date(2024, 3, 1))], "u string, i string, t date").first()
    assert row.us == NOON_US - 12 * 3_600_000_000


def test_every_reason_is_given_and_the_raw_row_is_kept(spark):
    rows = [
        (None, " ", "soon", "x"),
        ("a", "b", "1970-01-01T00:00:00Z", "1"),
        ("a", "b", "2024-03-01T12:00:00Z", "NaN"),
        ("a", "b", "2024-03-01T12:00:00Z", "-1"),
        ("a", "b", "2024-03-01T12:00:00Z", None),
        ("a", "b", "2024-03-01T12:00:00Z", "7"),
    ]
    found = check(spark, rows, "u string, i string, t string, v string", Ingest(value_floor=0, value_cap=5), value="v")
    reasons = [sorted(row.reasons) for row in found.collect()]
    assert reasons[0] == ["event_ts_unreadable", "item_id_missing", "user_id_missing", "value_unreadable"]
    assert reasons[1] == ["event_ts_out_of_range", "event_ts_placeholder"]
    assert reasons[2][-1] == "value_not_finite"
    assert reasons[3] == ["value_at_or_below_floor"]
    assert reasons[4:] == [[], []]
    assert [row.value for row in found.collect()][4:] == [None, 5.0]
    good, bad = split(found)
    assert (good.count(), bad.count()) == (2, 4)
    assert '"t":"soon"' in bad.first().raw


def test_an_event_that_happened_long_after_it_was_known_is_rejected(spark):
    rows = [
        ("a", "b", NOON, NOON - timedelta(days=2)),
        ("a", "b", NOON, NOON - timedelta(hours=2)),
        ("a", "b", NOON, None),
    ]
    found = check(spark, rows, "u string, i string, t timestamp, k timestamp", available_ts="k").collect()
    assert [row.reasons for row in found] == [["event_ts_after_available"], [], ["available_ts_unreadable"]]


def test_types_are_mapped_and_unknown_ones_become_other(spark):
    raw = spark.createDataFrame(
        [("a", "b", NOON, k) for k in ("buy", "view", "zzz", None)], "u string, i string, t timestamp, k string"
    )
    mapped = EventSource.model_validate(
        {
            "path": "-", "columns": {"user_id": "u", "item_id": "i", "event_ts": "t", "event_type": "k"},
            "event_types": {"buy": "purchase"}, "default_type": "click",
        }
    )  # fmt: skip
    assert [r.event_type for r in validate_events(raw, mapped, Ingest()).collect()] == [
        "purchase",
        "view",
        "other",
        "click",
    ]


def events(spark, *rows):
    full = [(i, u, "item", "view", NOON, NOON + timedelta(hours=h), v, None, "s") for i, u, h, v in rows]
    return spark.createDataFrame(full, schema(EVENTS))


def test_of_two_deliveries_the_one_that_was_known_first_stays(spark):
    kept = first_available(events(spark, ("e1", "a", 5, 1.0), ("e1", "b", 2, 2.0), ("e2", "c", 1, None))).collect()
    assert sorted((r.event_id, r.user_id) for r in kept) == [("e1", "b"), ("e2", "c")]


def test_of_equal_deliveries_the_same_one_stays_in_whatever_order_they_come(spark):
    rows = [("e1", "a", 1, 1.0), ("e1", "a", 1, 2.0), ("e1", "a", 1, None)]
    kept = {first_available(events(spark, *order)).first().value for order in (rows, rows[::-1])}
    assert len(kept) == 1


def test_the_same_content_has_the_same_id_and_other_content_another(spark):
    rows = [("a", "b", NOON), ("a", "b", NOON), ("a", "c", NOON), ("ab", "", NOON)]
    ids = [r.event_id for r in check(spark, rows, "u string, i string, t timestamp").collect()]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


def test_items_keep_one_row_an_id_and_say_why_others_went(spark):
    raw = spark.createDataFrame(
        [
            ("1", "A", "2024-01-01"),
            ("1", "B", "2024-01-01"),
            ("2", "C", "whenever"),
            (None, "D", None),
            ("3", "E", None),
        ],
        "id string, name string, out string",
    )
    mapped = ItemSource.model_validate(
        {"path": "-", "columns": {"item_id": "id", "title": "name", "release_ts": "out"}}
    )
    good, bad = split_items(validate_items(raw, mapped))
    assert sorted((r.item_id, r.title, r.release_known) for r in good.collect()) == [
        ("1", "A", True),
        ("3", "E", False),
    ]
    assert sorted(r.reasons[0] for r in bad.collect()) == [
        "item_id_duplicate",
        "item_id_missing",
        "release_ts_unreadable",
    ]


def test_items_that_only_events_know_are_added_and_a_filled_release_is_flagged(spark):
    log = events(spark, ("e1", "a", 0, 1.0))
    (row,) = complete_items(None, log).collect()
    assert (row.item_id, row.release_known, row.title) == ("item", False, None)
    assert row.release_ts is not None


def test_items_that_grow_by_new_events_are_those_of_the_whole_log(spark):
    def at(item, hours):
        return ("e", "u", item, "view", NOON + timedelta(hours=hours), NOON, None, None, "s")

    first, later = [at("a", 0), at("b", 5), at("c", 5)], [at("b", -3), at("c", 9), at("d", 2), at("d", 1)]
    old, new = (spark.createDataFrame(rows, schema(EVENTS)) for rows in (first, later))
    known = {"item_id": "c", "release_ts": NOON, "release_known": True, "title": "C"}
    catalogue = spark.createDataFrame([tuple(known.get(name) for name in ITEMS.column_names)], schema(ITEMS))
    for stated in (None, catalogue):
        grown = complete_items(complete_items(stated, old), new)
        assert sorted(map(str, grown.collect())) == sorted(map(str, complete_items(stated, old.union(new)).collect()))
        assert {row.item_id for row in grown.collect()} == {"a", "b", "c", "d"}
