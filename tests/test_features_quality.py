"""Whatever is bad is rejected with its reason, none of it is lost, and it changes nothing of what is good."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
import test_features
import worlds
from pyspark.sql import functions as F

from conf.sources import EventSource, Ingest, ItemSource
from features.contracts import EVENTS
from features.events import first_available, judged, judged_items, read_events, read_items, split, validate_events
from features.quality import EVENT_CHECKS, ITEM_CHECKS, LONGEST_ID, PLACEHOLDERS, hits, judges, reasons, tally

pytestmark = pytest.mark.spark
FIELDS = ("case", "u", "i", "t", "k", "v", "s", "e", "kind")
TEXT = ", ".join(f"{name} string" for name in FIELDS)
SOURCE = EventSource.model_validate({
    "path": "-",
    "columns": {"user_id": "u", "item_id": "i", "event_ts": "t", "available_ts": "k", "value": "v", "session_id": "s",
                "event_id": "e", "event_type": "kind"},
    "event_types": {"buy": "purchase"},
})  # fmt: skip
INGEST = Ingest(value_floor=-50, max_lateness=timedelta(days=30))
START = datetime(2024, 1, 1, tzinfo=UTC)
SINGLES, SUBSETS = 2_400, 40


def good(draw: random.Random, name: str) -> dict[str, str | None]:
    """A row with nothing wrong, spelt in one of the ways in which sources spell."""
    at = START + timedelta(microseconds=draw.randrange(90 * 86_400_000_000))
    us = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    arrived = at + timedelta(seconds=draw.choice([0, 5, 3_600, -600, 20 * 86_400]))
    return {
        "u": draw.choice([f"u{draw.randrange(30)}", " u7 ", "0", "Ünï", "a b", "\u00a0x"]),
        "i": draw.choice([f"i{draw.randrange(50)}", "007", "-2", "nullarbor", "x" * LONGEST_ID]),
        "t": draw.choice([at.isoformat(), f" {at.isoformat()} ", str(us), str(us // 1_000), str(us * 1_000), f"{us / 1e6:.6f}"]),
        "k": arrived.isoformat(),
        "v": draw.choice([None, "", "0", "-49.5", " 3 ", "1e3", "999999999999"]),
        "s": draw.choice([None, "", f"s{draw.randrange(9)}"]),
        "e": name,
        "kind": draw.choice([None, "buy", "view", "something else"]),
    }


def moment(row: dict) -> datetime:
    return datetime.fromisoformat(row["k"])


def shifted(row: dict, name: str, by: timedelta) -> dict:
    return row | {name: (moment(row) + by).isoformat()}


def amid(draw: random.Random, text: str) -> str:
    return "a" + text + draw.choice(["b", "42", "ß"])


def year(draw: random.Random) -> str:
    chosen = draw.choice([draw.randrange(1000, 1899), draw.randrange(1902, 1969), draw.randrange(2101, 9998)])
    return f"{chosen:04d}-0{draw.randrange(1, 10)}-{draw.randrange(10, 29)}T0{draw.randrange(10)}:00:00Z"


BLANK = (None, "", " ", "\t", " \u00a0\r\n")
CONTROL = [chr(n) for n in (*range(0x20), 0x7F)]
UNREADABLE = (None, "", "soon", "12:30", "T12:00:00", "now", "2024-02-30", "2024-13-01", "31/12/2024", "20240301", "1709294",
              "2024-03-01T25:00:00", "NaN", "99999999999999999999999", "2024-03-01T12:00:00+99:00", "-", "null", "💥")  # fmt: skip
NO_NUMBER = ("abc", "1,5", "--", "1 2", "$3", "null", "0x", "١٢x")
NOT_FINITE = ("NaN", "Infinity", "-Infinity", "inf", "1e999", "-1e999")

#: reason -> how a row gets it. Each takes a good row and spoils one field.
PLANTS = {
    "user_id_missing": lambda d, r: r | {"u": d.choice(BLANK)},
    "user_id_placeholder": lambda d, r: r | {"u": d.choice(["", " "]) + d.choice([str.upper, str.lower, str.title])(
        d.choice([*PLACEHOLDERS, "00000000", "00000000-0000-0000-0000-000000000000"]))},
    "user_id_reserved": lambda d, r: r | {"u": d.choice(["*", " * "])},
    "item_id_missing": lambda d, r: r | {"i": d.choice(BLANK)},
    "item_id_placeholder": lambda d, r: r | {"i": d.choice(PLACEHOLDERS)},
    "id_too_long": lambda d, r: r | {d.choice("uise"): "x" * (LONGEST_ID + d.randrange(1, 99))},
    "id_with_control_characters": lambda d, r: r | {d.choice("uise"): amid(d, d.choice(CONTROL))},
    "event_id_missing": lambda d, r: r | {"e": d.choice(BLANK)},
    "event_ts_unreadable": lambda d, r: r | {"t": d.choice(UNREADABLE)},
    "event_ts_placeholder": lambda d, r: r | {"t": d.choice(
        ["1970-01-01", "000000000", "1900-01-01T00:00:00", "0001-01-01", "9999-12-31T23:59:59Z", "1970-01-01T00:00:00.000Z"])},
    "event_ts_out_of_range": lambda d, r: r | {"t": d.choice(
        [year(d), str(17 * 10 ** d.choice([12, 15])), str(-9 * 10**18), "100000000", "1e17", str(2**63 - 1)])},
    "available_ts_unreadable": lambda d, r: r | {"k": d.choice(UNREADABLE)},
    "available_ts_out_of_range": lambda d, r: r | {"k": year(d)},
    "event_ts_after_available": lambda d, r: shifted(r, "t", timedelta(days=1, microseconds=d.randrange(1, 10**12))),
    "too_late": lambda d, r: shifted(r, "t", -timedelta(days=30, microseconds=d.randrange(1, 10**12))),
    "value_unreadable": lambda d, r: r | {"v": d.choice(NO_NUMBER)},
    "value_not_finite": lambda d, r: r | {"v": d.choice(NOT_FINITE)},
    "value_out_of_range": lambda d, r: r | {"v": f"{d.choice(['', '-'])}{d.randrange(1, 10)}e{d.randrange(13, 300)}"},
    "value_at_or_below_floor": lambda d, r: r | {"v": d.choice(["-50", "-50.0", "-51", "-1e5"])},
}  # fmt: skip
#: Those that spoil the same field: of these a row gets one.
FIELD_OF = {name: name.partition("_")[0] for name in PLANTS} | {
    "available_ts_unreadable": "event", "available_ts_out_of_range": "event", "too_late": "event", "id_too_long": "id",
    "id_with_control_characters": "id", "user_id_missing": "id", "user_id_placeholder": "id", "user_id_reserved": "id",
    "item_id_missing": "id", "item_id_placeholder": "id", "event_id_missing": "id",
}  # fmt: skip


def bad(draw: random.Random, name: str, kinds: list[str]) -> dict:
    row = good(draw, name)
    for kind in kinds:
        row = PLANTS[kind](draw, row)
    return row


def some_kinds(draw: random.Random) -> list[str]:
    """One to three faults, each of another field."""
    kinds = draw.sample(sorted(PLANTS), draw.choice([1, 1, 1, 3]))
    return [k for n, k in enumerate(kinds) if FIELD_OF[k] not in {FIELD_OF[e] for e in kinds[:n]}]


def frame(spark, rows):
    return spark.createDataFrame([tuple(row.get(name) for name in FIELDS) for row in rows], TEXT)


def plain(frame):
    """Rows as text, timestamps as micros: equal iff equal byte for byte."""
    names = [F.unix_micros(n).alias(n) if n.endswith("_ts") else F.col(n) for n in EVENTS.column_names]
    return frame.select(*names)


def test_the_plants_speak_of_every_check_that_rejects():
    assert set(PLANTS) == {check.id for check in EVENT_CHECKS if check.severity == "reject"}


def test_every_one_of_thousands_of_bad_rows_is_rejected_for_what_was_planted_and_no_good_one_is(spark):
    draw = random.Random(1)
    planted: dict[str, set[str]] = {}
    rows = []
    for n in range(SINGLES):
        kinds = [sorted(PLANTS)[n % len(PLANTS)]] if n < SINGLES // 2 else some_kinds(draw)
        planted[f"bad{n}"] = set(kinds)
        rows.append(bad(draw, f"bad{n}", kinds) | {"case": f"bad{n}"})
    rows += [good(draw, f"good{n}") | {"case": f"good{n}"} for n in range(400)]
    draw.shuffle(rows)
    asked = judges(EVENT_CHECKS, SOURCE, INGEST)
    read = read_events(frame(spark, rows), SOURCE, INGEST)
    found = {r["case"]: set(r["reasons"]) for r in read.select("_row.case", reasons(asked).alias("reasons")).collect()}
    assert len(found) == len(rows), "a row was lost"
    missed = {case: (kinds, found[case]) for case, kinds in planted.items() if not kinds <= found[case]}
    assert not missed
    assert {case: why for case, why in found.items() if case.startswith("good") and why} == {}

    counted = tally(read, asked).first().asDict()
    assert (counted["read"], counted["rejected"]) == (len(rows), len(planted))
    assert hits(counted, asked, "reject") == dict(Counter(why for each in found.values() for why in each))


def test_a_good_log_with_bad_rows_in_it_is_the_good_log(spark):
    """SUBSETS mixtures of one log: the good side is the same row for row; good and bad are all that was read."""
    draw = random.Random(2)
    log = [good(draw, f"e{n}") for n in range(50)]
    rows, spoilt = [], Counter()
    for n in range(SUBSETS):
        more = [bad(draw, f"bad{k}", some_kinds(draw)) for k in range(draw.randrange(1, 60))]
        # An id that a good row has, and a good row that is spoilt and sent again.
        more += [r | {"e": draw.choice(log)["e"]} for r in more[:3] if r["e"] and r["e"].startswith("bad")]
        kind = draw.choice([k for k in PLANTS if k != "event_id_missing"])
        more.append(PLANTS[kind](draw, draw.choice(log)))
        spoilt[str(n)] = len(more)
        mixed = [*log, *more]
        draw.shuffle(mixed)
        rows += [r | {"case": str(n)} for r in mixed]
    rows += [r | {"case": "alone"} for r in log]
    asked = judges(EVENT_CHECKS, SOURCE, INGEST)
    read = read_events(frame(spark, rows), SOURCE, INGEST)
    sides: dict[str, list[str]] = {}
    rejected = Counter()
    names = [F.unix_micros(n).alias(n) if n.endswith("_ts") else F.col(n) for n in EVENTS.column_names]
    for r in read.select(F.col("_row.case").alias("case"), reasons(asked).alias("reasons"), *names).collect():
        if r["reasons"]:
            rejected[r["case"]] += 1
        else:
            sides.setdefault(r["case"], []).append(repr([r[name] for name in EVENTS.column_names]))
    assert len(sides["alone"]) == len(log)
    for case in map(str, range(SUBSETS)):
        assert sorted(sides[case]) == sorted(sides["alone"]), case
        assert rejected[case] == spoilt[case], case


def test_features_of_good_and_bad_are_the_features_of_good(spark):
    draw = random.Random(3)
    events, items = worlds.shop(n=200)
    log = [
        {"u": e.user_id, "i": e.item_id, "t": e.event_ts.isoformat(), "k": e.available_ts.isoformat(), "s": e.session_id,
         "v": None if e.value is None else repr(e.value), "e": e.event_id, "kind": e.event_type}
        for e in events
    ]  # fmt: skip
    mixed = log + log[:40] + [bad(draw, f"bad{n}", some_kinds(draw)) for n in range(150)]
    draw.shuffle(mixed)
    tables = []
    for rows in (log, mixed):
        kept, _ = split(validate_events(frame(spark, rows), SOURCE, INGEST))
        found = plain(first_available(kept)).collect()
        times = [tuple(r[n] for n in ("event_ts", "available_ts")) for r in found]
        seen = [
            worlds.Event(r.event_id, r.user_id, r.item_id, r.event_type, *map(at, t), r.value, r.session_id, r.source)
            for r, t in zip(found, times, strict=True)
        ]
        tables.append((sorted(map(repr, found)), test_features.collected(spark, seen, items, [test_features.NIGHT])))
    (rows_alone, alone), (rows_mixed, together) = tables
    assert rows_mixed == rows_alone and len(rows_alone) == len(events)
    for name in test_features.NAMES:
        assert alone[name], name
        assert repr(sorted(together[name].items())) == repr(sorted(alone[name].items())), name


def at(us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)


NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
SECONDS = int(NOON.timestamp())
INF, NAN = float("inf"), float("nan")
#: Column type of the moment -> (good moments, reason -> bad moments).
TYPED = {
    "bigint": ([SECONDS, SECONDS * 1_000, SECONDS * 10**6, SECONDS * 10**9],
               {"event_ts_unreadable": [None], "event_ts_out_of_range": [-1, 2**63 - 1, -(2**63), SECONDS // 60, SECONDS * 60],
                "event_ts_placeholder": [0, 1, 86_399]}),
    "double": ([float(SECONDS), SECONDS * 1e3, SECONDS * 1e6, SECONDS * 1e9],
               {"event_ts_unreadable": [None, NAN, INF, -INF, 1e300], "event_ts_out_of_range": [-1e10, 1e10, 1e18 * 9],
                "event_ts_placeholder": [0.0, 0.5]}),
    "timestamp": ([NOON], {"event_ts_unreadable": [None], "event_ts_out_of_range": [datetime(1989, 12, 31, tzinfo=UTC)],
                           "event_ts_placeholder": [datetime(1970, 1, 1, tzinfo=UTC)]}),
    "date": ([NOON.date()], {"event_ts_unreadable": [None], "event_ts_out_of_range": [datetime(2100, 1, 1).date()],
                             "event_ts_placeholder": [datetime(1970, 1, 1).date()]}),
}  # fmt: skip
IDS = ([0, 7, 2**53], {"user_id_missing": [None], "user_id_placeholder": [-1]})
ITEMS = ([0.0, 7.0, 7.5], {"item_id_missing": [None, NAN], "item_id_placeholder": [-1.0]})
VALUES = ([None, 0.0, -3.5, 1e12], {"value_not_finite": [NAN, INF, -INF], "value_out_of_range": [1.1e12, -1e300]})


@pytest.mark.parametrize("kind", TYPED)
def test_typed_columns_are_judged_like_text(spark, kind):
    draw = random.Random(4)
    source = EventSource.model_validate(
        {"path": "-", "columns": {"user_id": "u", "item_id": "i", "event_ts": "t", "value": "v"}}
    )
    rows, planted = [], {}
    for case in range(400):
        row, why = [case], set()
        for fine, faults in (IDS, ITEMS, TYPED[kind], VALUES):
            reason = draw.choice(sorted(faults)) if draw.random() < 0.4 else None
            row.append(draw.choice(faults[reason] if reason else fine))
            why |= {reason} if reason else set()
        rows.append(tuple(row))
        planted[case] = why
    raw = spark.createDataFrame(rows, f"case int, u bigint, i double, t {kind}, v double")
    asked = judges(EVENT_CHECKS, source, Ingest())
    read = read_events(raw, source, Ingest()).select("_row.case", reasons(asked).alias("reasons"))
    found = {r["case"]: set(r["reasons"]) for r in read.collect()}
    implied = {"event_ts_placeholder": "event_ts_out_of_range"}
    assert found == {case: why | {implied[w] for w in why if w in implied} for case, why in planted.items()}


WARNED = {
    "id_with_blanks": {"u": " a "}, "id_badly_encoded": {"i": "caf\ufffd"}, "event_ts_at_midnight": {"t": "2024-03-01"},
    "unknown_event_type": {"kind": "wink"}, "event_type_missing": {"kind": None}, "value_capped": {"v": "101"},
    "value_missing": {"v": " "}, "session_id_missing": {"s": None},
}  # fmt: skip


def test_each_warning_counts_its_rows_and_rejects_none(spark):
    fine = {"u": "a", "i": "b", "t": NOON.isoformat(), "k": NOON.isoformat(), "v": "1", "s": "s", "kind": "view"}
    rows = [fine | {"e": "fine"}]
    rows += [fine | change | {"e": f"{name}{k}"} for n, (name, change) in enumerate(WARNED.items(), 1) for k in range(n)]
    # Two rows in milliseconds among three in seconds: two are of another unit than most.
    rows += [fine | {"t": str(SECONDS * scale), "e": f"unit{n}"} for n, scale in enumerate([1, 1, 1, 1_000, 1_000])]
    ingest = Ingest(value_cap=100)
    asked = judges(EVENT_CHECKS, SOURCE, ingest)
    counted = tally(read_events(frame(spark, rows), SOURCE, ingest), asked).first().asDict()
    assert counted["rejected"] == 0
    expected = {name: n for n, name in enumerate(WARNED, 1)} | {"event_ts_units_mixed": 2}
    assert hits(counted, asked, "warn") == expected
    assert set(expected) == {check.id for check in EVENT_CHECKS if check.severity == "warn"}


def test_each_check_of_items_finds_its_row_and_counts_it(spark):
    fine = {"id": "a", "name": "A", "out": "2024-01-01", "start": "2024-01-02", "end": "2024-02-01", "cost": "3", "vec": "[1, 2]"}
    plants = {
        "item_id_missing": {"id": " "}, "item_id_placeholder": {"id": "NULL"}, "id_too_long": {"id": "x" * 513},
        "id_with_control_characters": {"id": "a\u001fb"}, "id_badly_encoded": {"id": "caf\ufffd"}, "id_with_blanks": {"id": " c "},
        "release_ts_unreadable": {"out": "spring"}, "available_from_unreadable": {"start": "soon"},
        "available_until_unreadable": {"end": "never"}, "item_ts_out_of_range": {"end": "12024-01-01"},
        "available_until_before_from": {"start": "2024-02-01"}, "release_after_available_until": {"out": "2024-02-01"},
        "price_unreadable": {"cost": "cheap"}, "price_not_finite": {"cost": "NaN"}, "price_negative": {"cost": "-1"},
        "embedding_unreadable": {"vec": "[1, null]"}, "title_missing": {"name": ""}, "item_id_duplicate": {"id": "fine"},
    }  # fmt: skip
    rows = [fine | {"id": "fine"}] + [fine | {"id": f"id{n}"} | plant for n, plant in enumerate(plants.values())]
    raw = spark.createDataFrame([tuple(r.values()) for r in rows], ", ".join(f"{name} string" for name in fine))
    columns = {"item_id": "id", "title": "name", "release_ts": "out", "available_from": "start", "available_until": "end",
               "price": "cost", "embedding": "vec"}  # fmt: skip
    source = ItemSource.model_validate({"path": "-", "columns": columns})
    asked = judges(ITEM_CHECKS, source, Ingest())
    read = read_items(raw, source, Ingest())
    counted = tally(read, asked).first().asDict()
    faults, warnings = (
        {c.id for c in ITEM_CHECKS if c.severity == severity and c.id in plants} for severity in ("reject", "warn")
    )
    assert faults | warnings == set(plants) == {check.id for check in ITEM_CHECKS}
    assert hits(counted, asked, "reject") == dict.fromkeys(faults, 1)
    assert hits(counted, asked, "warn") == dict.fromkeys(warnings, 1)
    assert (counted["read"], counted["rejected"]) == (len(rows), len(faults))
    assert judged_items(read, asked).where("size(reasons) > 1").count() == 0


def test_a_check_that_is_only_a_warning_keeps_the_row_without_what_cannot_be_read(spark):
    ingest = Ingest(checks={"value_unreadable": "warn", "id_too_long": False})
    row = {"u": "x" * 600, "i": "b", "t": NOON.isoformat(), "k": NOON.isoformat(), "v": "many", "e": "1"}
    asked = judges(EVENT_CHECKS, SOURCE, ingest)
    (found,) = judged(read_events(frame(spark, [row]), SOURCE, ingest), asked).collect()
    assert (found.reasons, found.value, found.raw) == ([], None, None)
