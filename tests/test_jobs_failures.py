"""What Spark, the JVM or the system throws ends a job with one line that names the cause, and is on record in runs."""

from __future__ import annotations

import errno

import pytest
import shop
from pyspark.sql import functions as F

from features.contracts import RUNS
from jobs import cli
from jobs.failures import reason
from jobs.run_log import recorded
from jobs.table_io import Warehouse

STAGE = """An error occurred while calling o1.save.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 1 in stage 216.0 failed 1 times
\tat org.apache.spark.scheduler.DAGScheduler.abortStage(DAGScheduler.scala:2790)
Caused by: java.io.IOException: write failed
\tat java.base/java.io.FileOutputStream.write(FileOutputStream.java:349)
Caused by: java.io.IOException: No space left on device
\tat java.base/java.io.FileOutputStream.writeBytes(Native Method)
"""
WORKER = """
  An exception was thrown from the Python worker. Please see the stack trace below.
Traceback (most recent call last):
  File "model/predict.py", line 1, in score
ValueError: no such item
"""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError(STAGE), "java.io.IOException: No space left on device; free room where"),
        (RuntimeError(WORKER), "ValueError: no such item"),
        (RuntimeError("An error occurred while calling o1.save.\n: java.lang.OutOfMemoryError: Java heap space\n\tat x.y"),
         "java.lang.OutOfMemoryError: Java heap space; give the JVM more: spark.driver_memory"),
        (RuntimeError("[TABLE_OR_VIEW_NOT_FOUND] no table\n'UnresolvedRelation [x]"), "[TABLE_OR_VIEW_NOT_FOUND] no table"),
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), "[Errno 28] No space left on device: '/data/x'; free room where"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "[Errno 111] Connection refused; the JVM is gone"),
        (OSError(), "OSError"),
    ],
)  # fmt: skip
def test_the_deepest_cause_is_told_with_what_to_do(error, told):
    found = reason(error)
    assert found.startswith(told), found
    assert "\n" not in found


class Kept:
    """The tests' session under a job that would stop it."""

    def __init__(self, spark):
        self.spark = spark

    def __getattr__(self, name):
        return getattr(self.spark, name)

    def stop(self):
        pass


@pytest.mark.spark
def test_a_file_that_spark_cannot_read_ends_a_job_in_one_line(spark, tmp_path, monkeypatch, capsys):
    """A failed stage is an error of py4j, and none of PySpark's own."""
    settings = shop.settings(tmp_path)
    monkeypatch.setattr(cli, "open_session", lambda *_: Kept(spark))
    monkeypatch.setattr(cli, "load", lambda _: settings)
    (tmp_path / "broken.parquet").write_bytes(b"no parquet at all")

    def body(context: cli.Context) -> None:
        with recorded(context.warehouse, "look", None, context.as_of):
            context.spark.read.schema("a INT").parquet(str(tmp_path / "broken.parquet")).agg(F.sum("a")).collect()

    assert cli.run(body, "look", tmp_path, "2024-02-01T00:00:00Z", "nightly", False) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert told[0].startswith("error in look: ")
    assert "broken.parquet" in told[0]
    assert "is not a Parquet file" in told[0]
    failed = Warehouse(spark, settings).read(RUNS).collect()
    assert [(row.status, "is not a Parquet file" in row.message, "\tat " in row.message) for row in failed] == [("failed", True, False)]
