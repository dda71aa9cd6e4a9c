"""One Spark session for all tests, UTC, with Delta; small and quiet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import shop
from filelock import FileLock
from pyspark.sql import SparkSession

from conf.settings import Spark
from jobs.build_features import build
from jobs.cli import Context
from jobs.ingest import ingest
from jobs.nightly import nightly
from jobs.spark.session import open_session


@pytest.fixture(scope="session")
def spark() -> SparkSession:
    session = open_session(Spark(master="local[2]", driver_memory="2g", shuffle_partitions=2), "kairos-tests")
    yield session
    session.stop()


@pytest.fixture(scope="session")
def built_shop(spark, tmp_path_factory, worker_id):
    """A context on features of two nights and of an hour after each, without lists. Not to be changed: see shop.copied."""
    with _shared(tmp_path_factory, worker_id, "built") as (folder, new):
        context = shop.context(spark, shop.settings(folder))
        if new:
            _build(context, folder)
    return context


@pytest.fixture(scope="session")
def listed_shop(spark, tmp_path_factory, worker_id):
    """A context on a whole night of a shop with a catalogue: tables, a model and lists. Not to be changed: see shop.copied."""
    with _shared(tmp_path_factory, worker_id, "listed") as (folder, new):
        context = shop.context(spark, shop.with_catalogue(shop.settings(folder), folder))
        if new:
            shop.events().to_csv(folder / "log.csv", index=False)
            shop.catalogue(folder)
            nightly(context)
    return context


@contextmanager
def _shared(tmp_path_factory, worker_id: str, name: str) -> Iterator[tuple[Path, bool]]:
    """A folder for all processes of this run of the tests, and whether it is to be filled: the first that asks does it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / name
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        yield folder, not (folder / "done").exists()
        (folder / "done").touch()


def _build(context: Context, folder: Path) -> None:
    shop.events(n=600).to_csv(folder / "log.csv", index=False)
    ingest(context)
    for night in (shop.NIGHT, shop.NEXT):
        build(replace(context, as_of=night), backfill=False)
        build(replace(context, as_of=night + (shop.HOUR - shop.NIGHT), mode="hourly"), backfill=False)


@pytest.fixture(scope="module", autouse=True)
def plans(request) -> None:
    """Whole jobs are tested without whole-stage code, which takes longer to make than small tables do; features, the cluster
    and the demo with it, as in production. The rows are the same.
    """
    marks = getattr(request.module, "pytestmark", [])
    names = {mark.name for mark in (marks if isinstance(marks, list) else [marks])}
    if not {"spark", "slow"} <= names:
        yield
        return
    conf = request.getfixturevalue("spark").conf
    conf.set("spark.sql.codegen.wholeStage", "false")
    yield
    conf.unset("spark.sql.codegen.wholeStage")
