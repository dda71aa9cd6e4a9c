"""One night and one hour, end to end, on a small log: real Spark, Delta, trainer and MLflow."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
import shop
import yaml
from deltalake import DeltaTable

from conf.load import load
from conf.settings import Tuning
from features.contracts import RECOMMENDATIONS, RECOMMENDATIONS_LATEST, RUNS, TABLES
from jobs import show
from jobs.build_features import build
from jobs.errors import DataQualityError, UsageError
from jobs.evaluate import evaluate
from jobs.hourly import hourly
from jobs.nightly import nightly
from jobs.score import score
from jobs.tune_model import tune_model

pytestmark = [pytest.mark.spark, pytest.mark.slow]


def rows(context, table, where="true"):
    """The rows as sorted tuples of text: equal iff equal byte for byte after sorting."""
    return sorted(map(str, context.warehouse.read(table).where(where).collect()))


@pytest.fixture(scope="module")
def night(listed_shop, tmp_path_factory):
    return shop.copied(listed_shop, tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def first_lists(night):
    return rows(night, RECOMMENDATIONS)


@pytest.fixture(scope="module")
def hour(night, first_lists):
    context = replace(night, as_of=shop.HOUR, mode="hourly")
    hourly(context)
    return context


def test_a_night_from_raw_files_gives_every_user_a_full_list_and_one_for_everyone_else(night, first_lists):
    past = shop.events()
    known = set(past[past.when < shop.NIGHT.isoformat().replace("+00:00", "Z")].who)
    lists = night.warehouse.read(RECOMMENDATIONS).toPandas()
    assert set(lists.user_id) == known | {"*"}
    assert (lists.groupby("user_id")["rank"].agg(["min", "max", "nunique"]) == [1, 10, 10]).all(axis=None)
    assert not lists.duplicated(["user_id", "item_id"]).any()
    assert set(lists[lists.cold].user_id) == {"*"}
    assert lists.reason.str.len().min() > 0


@pytest.mark.soak  # test_jobs_nights_again.py makes nights again
def test_the_same_night_again_gives_the_same_rows(night, first_lists):
    nightly(night)
    assert rows(night, RECOMMENDATIONS) == first_lists


def test_an_hour_refreshes_those_who_acted_and_the_list_for_everyone_else(hour):
    log = shop.events()
    start, end = (t.strftime("%Y-%m-%dT%H:%M:%SZ") for t in (shop.NIGHT, shop.HOUR))
    acted = set(log[(log.when >= start) & (log.when < end)].who)
    assert acted, "the log has nobody in that hour, the test would prove nothing"
    latest = hour.warehouse.read(RECOMMENDATIONS_LATEST).toPandas()
    assert set(latest[latest["mode"] == "hourly"].user_id) == acted | {"*"}
    assert (latest.groupby("user_id").batch_id.nunique() == 1).all()
    assert (latest.groupby("user_id")["rank"].max() == 10).all()


def test_the_same_hour_again_gives_the_same_rows(hour):
    before = rows(hour, RECOMMENDATIONS), rows(hour, RECOMMENDATIONS_LATEST)
    build(hour, backfill=False)
    score(hour)
    assert (rows(hour, RECOMMENDATIONS), rows(hour, RECOMMENDATIONS_LATEST)) == before


def test_a_night_run_again_does_not_take_newer_hourly_lists_away(hour):
    score(replace(hour, as_of=shop.NIGHT, mode="nightly"))
    latest = hour.warehouse.read(RECOMMENDATIONS_LATEST).toPandas()
    assert "hourly" in set(latest["mode"])


def test_an_hour_at_the_moment_of_a_night_leaves_the_night_alone(hour):
    before = rows(hour, TABLES["user_sequences"])
    hourly(replace(hour, as_of=shop.NIGHT))
    with pytest.raises(UsageError, match="a full night was built"):
        build(replace(hour, as_of=shop.NIGHT), backfill=False)
    assert rows(hour, TABLES["user_sequences"]) == before


def test_a_reader_without_spark_sees_the_lists_by_value(hour):
    path = hour.warehouse.path(RECOMMENDATIONS_LATEST)
    query = (
        "import duckdb, json; from deltalake import DeltaTable\n"
        f"latest = DeltaTable({path!r}).to_pyarrow_dataset()\n"
        "print(json.dumps(duckdb.sql('SELECT user_id, rank, item_id, score, reason FROM latest ORDER BY 1, 2').fetchall()))"
    )
    out = subprocess.run([sys.executable, "-c", query], capture_output=True, text=True, check=True)
    spark_rows = hour.warehouse.read(RECOMMENDATIONS_LATEST).orderBy("user_id", "rank").collect()
    expected = [[r.user_id, r.rank, r.item_id, r.score, r.reason] for r in spark_rows]
    assert json.loads(out.stdout) == expected
    assert DeltaTable(path).protocol().min_reader_version == 1


def test_whoever_is_not_known_is_shown_the_list_for_everyone_else(hour):
    tables = show.connect(hour.settings.warehouse)
    stranger = tables.execute(show.LIST_OF_USER, {"user": "nobody"}).fetchall()
    everyone = tables.execute(show.LIST_OF_USER, {"user": "*"}).fetchall()
    known = tables.execute(show.LIST_OF_USER, {"user": "u1"}).fetchall()
    assert len(stranger) == 10
    assert stranger == everyone != known


def test_every_run_left_its_lineage(hour):
    runs = hour.warehouse.read(RUNS).toPandas()
    assert set(runs.job) >= {"ingest", "build_features", "train_model", "score"}
    scored = runs[(runs.job == "score") & (runs["mode"] == "hourly")].iloc[0]
    assert set(dict(scored.inputs)) >= {"items", "item_temporal", "item_neighbors", "user_sequences"}
    assert set(dict(scored.outputs)) == {"recommendations", "recommendations_latest"}
    assert scored.model_version == "1"
    first = runs[runs.job == "ingest"].sort_values("started_ts").iloc[0]
    counts = dict(first.counts)
    assert (
        counts["events_read"] == counts["events_written"] + counts["events_rejected"] + counts["events_duplicate"] > 0
    )
    metadata = json.loads(DeltaTable(hour.warehouse.path(RECOMMENDATIONS)).history(1)[0]["userMetadata"])
    assert metadata["run_id"] in set(runs.run_id)


def test_lists_are_judged_beside_the_baselines(hour):
    judging = hour.settings.evaluation.model_copy(update={"visit_parts": 3})
    settings = hour.settings.model_copy(update={"evaluation": judging})
    evaluate(replace(hour, as_of=shop.NIGHT, mode="nightly", settings=settings))
    path = hour.warehouse.path(RUNS).replace("runs", "evaluations")
    judged = DeltaTable(path).to_pandas()
    ndcg = judged[(judged.metric == "ndcg@10") & (judged.segment == "all")].set_index("recommender").metric_value
    assert {"kairos", "kairos knowing the visit", "popularity 7d", "personal frequency 90d"} <= set(ndcg.index)
    users = judged[(judged.metric == "ndcg@10") & (judged.segment == "all")].users
    assert users.nunique() == 1
    assert ndcg["kairos knowing the visit"] > 0.5 * ndcg["kairos"]
    assert ndcg["kairos"] > 0.5 * ndcg["personal frequency 90d"] > 0


def test_settings_are_tried_on_past_windows_and_what_was_best_is_a_file(hour, tmp_path):
    file = tmp_path / "testshop.yaml"
    file.write_text(yaml.safe_dump(hour.settings.resolved()))

    def asking(**tuning):
        settings = hour.settings.model_copy(update={"tuning": Tuning(**tuning)})
        return replace(hour, as_of=shop.NIGHT, mode="nightly", settings=settings, settings_file=file)

    with pytest.raises(DataQualityError, match=r"too few to hold out 2 .*KAIROS__TRAINING__ANCHORS=4 jobs/build_features\.py"):
        tune_model(asking(trials=2, windows=2))
    tune_model(asking(trials=2, windows=1))
    found = load(tmp_path.joinpath(hour.settings.warehouse, "tuned", "testshop.yaml"), {})
    assert found.source == hour.settings.source
    runs = hour.warehouse.read(RUNS).where("job = 'tune_model' AND status = 'ok'").toPandas()
    counts = dict(runs.iloc[0].counts)
    assert counts["judged_in_full"] + counts["failed"] == 2 and counts["lists"] > 10


def test_a_rewritten_future_changes_no_feature_and_no_list(hour, spark, tmp_path, first_lists):
    """Everything at or after the night is deleted, and other events are put in its place."""
    log = shop.events()
    cut = shop.NIGHT.strftime("%Y-%m-%dT%H:%M:%SZ")
    future = shop.events(seed=99)
    future = future[future.when >= cut].assign(who=lambda d: d.who + "x", what="i0")
    pd.concat([log[log.when < cut], future]).to_csv(tmp_path / "log.csv", index=False)
    shop.catalogue(tmp_path)
    poisoned = shop.context(spark, shop.with_catalogue(shop.settings(tmp_path), tmp_path))
    nightly(poisoned)
    assert rows(poisoned, RECOMMENDATIONS) == first_lists
    for name in ("user_sequences", "user_profiles", "user_item_repeats", "item_temporal", "item_neighbors"):
        cutoff = f"as_of_ts <= TIMESTAMP '{shop.NIGHT.isoformat()}'"
        assert rows(poisoned, TABLES[name], cutoff) == rows(hour, TABLES[name], cutoff), name
