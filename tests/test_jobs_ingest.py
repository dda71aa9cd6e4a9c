"""What a run of ingest does with data that came late, not at all, in the wrong amount, or is worth a word."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pandas as pd
import pytest
import shop
from pyspark.sql import functions as F

from features.contracts import EVENTS, EVENTS_REJECTED, RUNS
from features.windows import visible
from jobs.errors import DataQualityError, UsageError
from jobs.ingest import ingest

pytestmark = [pytest.mark.spark, pytest.mark.slow]
DAY = timedelta(days=1)


def text(moment) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def row(who, when, what="i1", how_many=1) -> dict:
    return {"who": who, "what": what, "when": when if isinstance(when, str) else text(when), "how_many": how_many}


def deployment(spark, folder, log, ingest_settings=None, columns=None, as_of=shop.NIGHT):
    """A log written to its file (None: the file as it is, which is then no new one), and a context on it."""
    if log is not None:
        pd.DataFrame(log).to_csv(folder / "log.csv", index=False)
    source = shop.settings(folder).source.events.model_dump()
    source["columns"] = source["columns"] | (columns or {})
    chosen = shop.settings(folder, source={"events": source}, ingest=ingest_settings or {})
    return shop.context(spark, chosen, as_of)


def last_run(context):
    return context.warehouse.read(RUNS).where("job = 'ingest'").orderBy(F.desc("started_ts")).first()


def adds_up(counts) -> bool:
    return counts["events_read"] == counts["events_written"] + counts["events_rejected"] + counts["events_duplicate"]


def known_at(context, moment):
    """The visible rows as text: equal iff equal byte for byte after sorting."""
    return sorted(map(str, visible(context.warehouse.read(EVENTS), moment).collect()))


# -- late events -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arrives", [False, True], ids=["no arrival column", "an arrival column"])
def test_a_late_event_is_seen_by_later_moments_only_and_one_too_late_is_rejected(spark, tmp_path, arrives):
    night, next_night = shop.NIGHT, shop.NIGHT + DAY
    log = [row(f"u{k}", night - timedelta(hours=3 * k + 1)) for k in range(19)]
    log.append(row("old", night - 20 * DAY))  # read again after more than max_lateness: a duplicate, not too late
    late, too_late = row("late", night - 2 * DAY), row("too_late", night - 9 * DAY)
    new = row("new", night + timedelta(hours=2))
    columns = {}
    if arrives:
        columns = {"available_ts": "seen"}
        log = [r | {"seen": r["when"]} for r in log]
        late, too_late, new = (r | {"seen": text(night + timedelta(hours=5))} for r in (late, too_late, new))
    context = deployment(spark, tmp_path, log, {"max_lateness": "7d"}, columns)
    ingest(context)
    before = known_at(context, night)
    assert len(before) == 20

    later = replace(deployment(spark, tmp_path, [late, *log, too_late, new], {"max_lateness": "7d"}, columns), as_of=next_night)
    ingest(later)
    assert known_at(later, night) == before, "an earlier moment knows more than it did"
    seen = {r.user_id: r for r in visible(later.warehouse.read(EVENTS), next_night).collect()}
    assert len(seen) == 22 and {"late", "new"} <= set(seen)
    counts = last_run(later).counts
    assert adds_up(counts)
    assert (counts["events_written"], counts["events_duplicate"], counts["rejected_too_late"]) == (2, 20, 1)
    (rejected,) = later.warehouse.read(EVENTS_REJECTED).collect()
    assert rejected.reasons == ["too_late"]
    assert json.loads(rejected.raw)["who"] == "too_late"

    ingest(later)
    assert last_run(later).message == "no new file"
    assert later.warehouse.read(EVENTS_REJECTED).count() == 1
    assert known_at(later, next_night) == sorted(map(str, seen.values()))


def test_without_an_arrival_column_an_event_became_known_when_ingest_first_met_it(spark, tmp_path):
    log = [row("a", shop.NIGHT - DAY)]
    ingest(deployment(spark, tmp_path, log))
    middle = replace(deployment(spark, tmp_path, log), as_of=shop.NIGHT + DAY)
    ingest(middle)  # nothing new; but it looked, so what comes now was not there then
    grown = [*log, row("b", shop.NIGHT + timedelta(hours=3)), row("c", shop.NIGHT + DAY)]
    last = replace(deployment(spark, tmp_path, grown), as_of=shop.NIGHT + 2 * DAY)
    ingest(last)
    at = dict(last.warehouse.read(EVENTS).select("user_id", F.date_format("available_ts", "yyyy-MM-dd HH")).collect())
    assert at == {"a": "2024-02-11 00", "b": "2024-02-14 00", "c": "2024-02-13 00"}


def test_a_past_night_that_is_run_again_does_not_learn_what_came_after_it(spark, tmp_path):
    log = [row("a", shop.NIGHT - DAY)]
    ingest(deployment(spark, tmp_path, log, as_of=shop.NIGHT + 3 * DAY))
    again = deployment(spark, tmp_path, [*log, row("b", shop.NIGHT - DAY)], as_of=shop.NIGHT)
    ingest(again)
    assert len(known_at(again, shop.NIGHT)) == len(known_at(again, shop.NIGHT + 2 * DAY)) == 1
    assert len(known_at(again, shop.NIGHT + 3 * DAY)) == 2


# -- limits ----------------------------------------------------------------------------------------------------------


def steady(per_day: int, days: int = 35) -> list[dict]:
    """The same number of events each day of the weeks before NIGHT."""
    return [
        row(f"u{k}", shop.NIGHT - timedelta(days=d + 1) + timedelta(minutes=7 * k + 1))
        for d in range(days)
        for k in range(per_day)
    ]


@pytest.mark.parametrize(
    ("last_day", "limits", "told"),
    [
        (5, {"least_share": 0.5}, None),
        (4, {"least_share": 0.5}, r"Sunday 2024-02-11 \(UTC\) has 4 events .* fewer than ingest\.volume\.least_share = 0\.5"),
        (15, {"most_share": 1.5}, None),
        (16, {"most_share": 1.5}, r"has 16 events .* more than ingest\.volume\.most_share = 1\.5 of the 10 that .* in 4 of the 4"),
        (0, {}, None),
    ],
)
def test_the_newest_day_is_compared_with_its_weekday(spark, tmp_path, last_day, limits, told):
    log = [r for r in steady(10) if r["when"] < text(shop.NIGHT - DAY)]
    log += [row(f"n{k}", shop.NIGHT - timedelta(minutes=k + 1)) for k in range(last_day)]
    # Neither a day that is not over, nor another weekday, nor a second delivery counts.
    log += [row(f"later{k}", shop.NIGHT + timedelta(minutes=k)) for k in range(30)] + log[-1:]
    context = deployment(spark, tmp_path, log, {"volume": limits}, as_of=shop.NIGHT + timedelta(hours=1))
    if told is None:
        ingest(context)
        return
    with pytest.raises(DataQualityError, match=told):
        ingest(context)
    assert not context.warehouse.exists(EVENTS), "something was written"
    assert last_run(context).status == "failed"


def test_volume_counts_what_is_known_together_with_what_is_new_and_is_judged_without_a_new_file(spark, tmp_path):
    limits = {"volume": {"least_share": 1.0, "weeks": 2}}
    old = [r for r in steady(4) if r["when"] < text(shop.NIGHT - DAY)]
    newest = [r for r in steady(4) if r["when"] >= text(shop.NIGHT - DAY)]
    ingest(deployment(spark, tmp_path, [*old, *newest[:2]]))
    with pytest.raises(DataQualityError, match="has 2 events"):
        ingest(deployment(spark, tmp_path, None, limits))
    with pytest.raises(DataQualityError, match="has 3 events"):
        ingest(deployment(spark, tmp_path, [*old, *newest[:3]], limits))
    ingest(deployment(spark, tmp_path, [*old, *newest], limits))


def test_a_feed_that_died_fails_the_night_with_or_without_a_new_file(spark, tmp_path):
    log = [row("a", shop.NIGHT - timedelta(hours=10)), row("b", shop.NIGHT - timedelta(hours=30))]
    limits = {"max_staleness": "10h"}
    ingest(deployment(spark, tmp_path, log, limits))  # just young enough, as a new row
    context = deployment(spark, tmp_path, None, limits)
    ingest(context)  # and as a known one
    assert last_run(context).message == "no new file"
    second = timedelta(seconds=1)
    told = r"no event of the last 10h before 2024-02-12T00:00:01Z .* the newest happened 2024-02-11T14:00:00Z.*nothing was written"
    with pytest.raises(DataQualityError, match=told):
        ingest(deployment(spark, tmp_path, None, limits, as_of=shop.NIGHT + second))
    # What is yet to happen makes no feed fresh.
    future = [*log, row("c", shop.NIGHT + second)]
    with pytest.raises(DataQualityError, match=told):
        ingest(deployment(spark, tmp_path, future, limits, as_of=shop.NIGHT + second))
    context = deployment(spark, tmp_path, future, limits, as_of=shop.NIGHT + 2 * second)
    ingest(context)
    assert context.warehouse.read(EVENTS).count() == 3


# -- checks ----------------------------------------------------------------------------------------------------------


def test_hits_of_each_check_are_counted_and_warnings_are_told(spark, tmp_path, capsys):
    when = shop.NIGHT - timedelta(hours=5)
    log = [
        *(row(f"u{k}", when) for k in range(14)),
        row(" v ", when), row("null", when), row("w", when, how_many=99), row("x", when, how_many=None),
        row("y", str(int(when.timestamp()))), row("z", str(int(when.timestamp()) * 1000)), row("zz", f"{int(when.timestamp())}"),
    ]  # fmt: skip
    limits = {"value_cap": 5, "max_rejected_share": 0.2, "checks": {"value_missing": False}}
    context = deployment(spark, tmp_path, log, limits)
    ingest(context)
    counts = last_run(context).counts
    found = {name: n for name, n in counts.items() if name.startswith(("rejected_", "warned_"))}
    assert found == {
        "rejected_user_id_placeholder": 1, "warned_id_with_blanks": 1, "warned_value_capped": 1, "warned_event_ts_units_mixed": 1,
    }  # fmt: skip
    assert adds_up(counts)
    (told,) = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert "of 21 events" in told and "value_capped 1 (4.8%)" in told and "units_mixed 1" in told


def test_a_check_may_be_made_stricter_or_turned_off(spark, tmp_path):
    log = [*(row(f"u{k}", shop.NIGHT - DAY) for k in range(8)), row("null", shop.NIGHT - DAY), row("w", shop.NIGHT - DAY, how_many=99)]
    checks = {"user_id_placeholder": "off", "value_capped": "reject"}
    context = deployment(spark, tmp_path, log, {"value_cap": 5, "checks": checks})
    ingest(context)
    assert [r.reasons for r in context.warehouse.read(EVENTS_REJECTED).collect()] == [["value_capped"]]
    assert context.warehouse.read(EVENTS).where("user_id = 'null'").count() == 1


@pytest.mark.parametrize(
    ("checks", "told"),
    [
        ({"value_caped": "off"}, r"unknown check ingest\.checks\.value_caped; did you mean 'value_capped'\?"),
        ({"zzz": "off"}, r"unknown check ingest\.checks\.zzz; known are: .*value_capped"),
        ({"event_ts_unreadable": "warn"}, r"ingest\.checks\.event_ts_unreadable cannot be warn: an event without its time"),
        ({"user_id_missing": False}, r"user_id_missing cannot be off: no event is without a user"),
        ({"event_ts_units_mixed": "reject"}, r"speaks of the source, not of a row"),
    ],
)
def test_a_check_that_is_not_there_or_is_needed_is_a_usage_error(spark, tmp_path, checks, told):
    context = deployment(spark, tmp_path, [row("a", shop.NIGHT)], {"checks": checks})
    with pytest.raises(UsageError, match=told):
        ingest(context)
