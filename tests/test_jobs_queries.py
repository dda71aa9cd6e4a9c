"""The same lists at a moment, by value, from Spark, DuckDB, pandas and polars; what the views tell; and the chain behind one place."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
import shop
import stub_lists

from features.contracts import RECOMMENDATIONS_LATEST, USER_ITEM_REPEATS
from jobs import show, views, why
from jobs.errors import UsageError
from jobs.score import score

pytestmark = [pytest.mark.spark, pytest.mark.slow]
README = (Path(__file__).parents[1] / "README.md").read_text()
LIST = ("user_id", "rank", "item_id", "score", "mode")
MOMENTS = {
    "the first night": shop.NIGHT,
    "after its hour": shop.HOUR + timedelta(minutes=5),
    "just before the next night": shop.NEXT - timedelta(microseconds=1),
    "the next night": shop.NEXT,
}


@pytest.fixture(scope="module")
def shown(built_shop, tmp_path_factory):
    """A night, an hour and the next night, each in an order of its own; what was shown after each is known."""
    context = shop.copied(built_shop, tmp_path_factory.mktemp("shown"))
    seen = {}
    for salt, (moment, mode) in enumerate([(shop.NIGHT, "nightly"), (shop.HOUR, "hourly"), (shop.NEXT, "nightly")]):
        with stub_lists.scoring(str(salt)):
            score(replace(context, as_of=moment, mode=mode))
        seen[moment] = sorted(map(tuple, context.warehouse.read(RECOMMENDATIONS_LATEST).select(*LIST).collect()))
    views.register(context.warehouse)
    truth = dict(zip(MOMENTS, [seen[shop.NIGHT], seen[shop.HOUR], seen[shop.HOUR], seen[shop.NEXT]], strict=True))
    assert seen[shop.NIGHT] != seen[shop.HOUR] != seen[shop.NEXT]
    return context, truth


def stamp(moment):
    return f"TIMESTAMP '{moment:%Y-%m-%d %H:%M:%S.%f}'"


@pytest.mark.parametrize("moment", MOMENTS)
def test_spark_and_duckdb_know_what_was_on_show(shown, moment):
    context, truth = shown
    query = f"SELECT {', '.join(LIST)} FROM recommendations_asof({stamp(MOMENTS[moment])})"
    assert sorted(map(tuple, context.spark.sql(query).collect())) == truth[moment]
    assert sorted(show.connect(context.settings.warehouse).sql(query).fetchall()) == truth[moment]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_the_readmes_words_for_pandas_and_polars_give_the_same(shown, library, moment):
    context, truth = shown
    pytest.importorskip(library)
    code = next(block for block in re.findall(r"```python\n(.*?)```", README, re.S) if block.startswith(f"# {library}\n"))
    code = code.replace("warehouse/demo", context.settings.warehouse)
    at = f"{MOMENTS[moment]:%Y-%m-%dT%H:%M:%S.%f+00:00}"
    code = re.sub(r"^ts = .*$", f"ts = pd.Timestamp({at!r})" if library == "pandas" else f"ts = datetime.fromisoformat({at!r})", code, flags=re.M)
    take = f"shown[{list(LIST)}].values.tolist()" if library == "pandas" else f"shown.select({list(LIST)}).rows()"
    done = subprocess.run([sys.executable, "-c", f"{code}\nimport json\nprint(json.dumps({take}))"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(map(tuple, json.loads(done.stdout))) == truth[moment]


def test_before_the_first_night_nothing_was_on_show(shown):
    context, _ = shown
    query = f"SELECT * FROM recommendations_asof({stamp(shop.NIGHT - timedelta(microseconds=1))})"
    assert context.spark.sql(query).collect() == [] and show.connect(context.settings.warehouse).sql(query).fetchall() == []


def test_the_explained_lists_are_the_lists_with_what_was_known(shown):
    context, truth = shown
    rows = context.spark.sql("SELECT * FROM recommendations_explained").collect()
    assert sorted(tuple(row[name] for name in LIST) for row in rows) == truth["the next night"]
    had = context.warehouse.partition(USER_ITEM_REPEATS, shop.NEXT).collect()
    times = {(r.user_id, r.item_id): r.repeat_count for r in had}
    assert {(r.user_id, r.item_id): r.user_times for r in rows if r.user_times} == {
        key: n for key, n in times.items() if key in {(r.user_id, r.item_id) for r in rows}
    }
    assert all(0 <= row.item_age_days < 50 for row in rows) and all(r.user_last_days > 0 for r in rows if r.user_times)


def test_the_views_show_what_is_there_when_they_are_asked(shown):
    context, truth = shown
    view = context.spark.sql(f"SELECT {', '.join(LIST)} FROM recommendations_latest").collect()
    assert sorted(map(tuple, view)) == truth["the next night"]


def status(context, moment):
    return {row.part: row for row in context.spark.sql(f"SELECT * FROM pipeline_status({stamp(moment)})").collect()}


def test_the_status_tells_ages_coverage_and_breaches(shown):
    context, _ = shown
    now = status(context, shop.NEXT + timedelta(hours=2))
    assert set(now) == {"events", "features", "model", "lists"}
    assert (now["features"].age_hours, now["lists"].age_hours, now["lists"].coverage) == (2.0, 2.0, 1.0)
    log = shop.events(n=600).when
    newest = pd.Timestamp(log[log < "2024-02-13T02:00:00Z"].max())
    assert now["events"].age_hours == (shop.NEXT + timedelta(hours=2) - newest).total_seconds() / 3600
    assert {part for part, row in now.items() if row.breached} == {"model"}  # there is none
    assert {part: row.limit_hours for part, row in now.items()} == {"events": None, "features": 168, "model": 192, "lists": 168}
    late = status(context, shop.NEXT + timedelta(days=7, hours=1))
    assert {part for part, row in late.items() if row.breached} == {"model", "lists"}  # an hour's features came after them
    assert context.spark.sql("SELECT * FROM pipeline_status(now()) WHERE breached").count() == 3


def test_the_chain_behind_a_place_goes_back_to_the_events(shown):
    context, _ = shown
    tables = show.connect(context.settings.warehouse)
    user, item = tables.execute(
        f"SELECT user_id, item_id FROM recommendations_asof({stamp(shop.HOUR)}) JOIN user_item_repeats USING (as_of_ts, user_id, item_id) "
        "WHERE mode = 'hourly' ORDER BY 1, 2 LIMIT 1"
    ).fetchone()
    steps = why.chain(tables, user, item, "2024-02-12T06:30:00Z")
    [place], [run] = steps["list"], steps["run"]
    assert place["mode"] == "hourly" and place["as_of_ts"] == shop.HOUR and place["model_version"] == "1"
    assert run["inputs"]["user_sequences"] >= 0 and run["outputs"].keys() == {"recommendations", "recommendations_latest"}
    [pair] = steps["features: user and item"]
    mine = [event for event in steps["events"] if event["item_id"] == item]
    assert len(mine) == pair["repeat_count"] and max(e["event_ts"] for e in mine) == pair["repeat_last_ts"]
    assert all(event["event_ts"] < shop.HOUR for event in steps["events"])
    assert any(event["neighbor_weight"] for event in steps["events"])
    stranger = why.chain(tables, "nobody", item, "2024-02-12T06:30:00Z")
    assert all(row["cold"] for row in stranger["list"]) and stranger["events"] == []
    with pytest.raises(UsageError, match="no list was on show"):
        why.chain(tables, user, item, "2020-01-01T00:00:00Z")
