"""One log in every format that may be mapped gives the same events; a dry run writes nothing."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import shop

from conf import columns as c
from features.contracts import EVENTS
from jobs.ingest import ingest
from jobs.nightly import nightly

pytestmark = [pytest.mark.spark, pytest.mark.slow]
FORMATS = ("csv", "json", "parquet", "delta", "nanoseconds")


def deployment(spark, folder, kind):
    folder.mkdir()
    log, path = shop.events(n=200), folder / f"log.{kind}"
    if kind == "csv":
        log.to_csv(path, index=False)
    elif kind == "json":
        log.to_json(path, orient="records", lines=True)
    elif kind == "parquet":
        log.to_parquet(path)
    elif kind == "nanoseconds":  # what pandas writes by itself
        log.assign(when=pd.to_datetime(log.when).astype("datetime64[ns, UTC]")).to_parquet(path, version="2.6")
    else:
        spark.createDataFrame(log).write.format("delta").save(str(path))
    source = shop.settings(folder).source.events.model_dump() | {"path": str(path), "format": kind if kind in ("csv", "json", "delta") else "parquet"}
    return shop.context(spark, shop.settings(folder, source={"events": source}))


def test_csv_json_lines_parquet_and_delta_give_the_same_events_once(spark, tmp_path):
    read = {}
    for kind in FORMATS:
        context = deployment(spark, tmp_path / kind, kind)
        ingest(context)
        ingest(context)  # nothing new: nothing is added
        read[kind] = context.warehouse.read(EVENTS).toPandas().sort_values(c.EVENT_ID).reset_index(drop=True)
    assert len(read["csv"]) == len(shop.events(n=200).drop_duplicates())
    for kind in FORMATS[1:]:
        assert read[kind].equals(read["csv"]), kind


def test_a_delta_source_that_grew_gives_only_what_is_new(spark, tmp_path):
    context = deployment(spark, tmp_path / "delta", "delta")
    ingest(context)
    before = context.warehouse.read(EVENTS).count()
    more = shop.events(seed=1, n=50)
    spark.createDataFrame(more).write.format("delta").mode("append").save(str(tmp_path / "delta" / "log.delta"))
    ingest(context)
    assert context.warehouse.read(EVENTS).count() == before + len(more.drop_duplicates())


@pytest.mark.parametrize("job", [ingest, nightly])
def test_a_dry_run_says_what_it_would_do_and_writes_nothing(spark, tmp_path, capsys, job):
    context = replace(deployment(spark, tmp_path / "csv", "csv"), dry_run=True)
    job(context)
    assert "would" in capsys.readouterr().out
    assert not list((tmp_path / "csv" / "warehouse").rglob("*.parquet"))
