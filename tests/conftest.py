"""One Spark session for all tests, UTC, with Delta; small and quiet."""

from __future__ import annotations

from dataclasses import replace

import pytest
import shop
from pyspark.sql import SparkSession

from conf.settings import Spark
from jobs.build_features import build
from jobs.ingest import ingest
from jobs.session import open_session


@pytest.fixture(scope="session")
def spark() -> SparkSession:
    session = open_session(Spark(master="local[2]", driver_memory="2g", shuffle_partitions=2), "kairos-tests")
    yield session
    session.stop()


@pytest.fixture(scope="session")
def built_shop(spark, tmp_path_factory):
    """A context on features of two nights and of an hour after each, without lists. Not to be changed: see shop.copied."""
    folder = tmp_path_factory.mktemp("built")
    shop.events(n=600).to_csv(folder / "log.csv", index=False)
    context = shop.context(spark, shop.settings(folder))
    ingest(context)
    for night in (shop.NIGHT, shop.NEXT):
        build(replace(context, as_of=night), backfill=False)
        build(replace(context, as_of=night + (shop.HOUR - shop.NIGHT), mode="hourly"), backfill=False)
    return context


#: Compiling plans takes most of the time of jobs on small tables, and interpreted plans give the same rows.
INTERPRETED = {"spark.sql.codegen.wholeStage": "false", "spark.sql.codegen.factoryMode": "NO_CODEGEN"}


@pytest.fixture(scope="module", autouse=True)
def plans(request) -> None:
    """Whole jobs are tested with interpreted plans; features, the cluster and the demo with compiled ones, as in production."""
    marks = getattr(request.module, "pytestmark", [])
    names = {mark.name for mark in (marks if isinstance(marks, list) else [marks])}
    if not {"spark", "slow"} <= names:
        yield
        return
    conf = request.getfixturevalue("spark").conf
    for key, value in INTERPRETED.items():
        conf.set(key, value)
    yield
    for key in INTERPRETED:
        conf.unset(key)
