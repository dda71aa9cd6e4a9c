"""What Spark, the JVM or the system throws ends a job with one line that names the cause, and is on record in runs."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest
import shop
from py4j.protocol import Py4JNetworkError
from pyspark.sql import functions as F

from features.contracts import RUNS
from jobs import cli
from jobs.failures import reason
from jobs.store.run_log import recorded
from jobs.store.table_io import Warehouse

STAGE = """An error occurred while calling o1.save.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 1 in stage 216.0 failed 1 times
\tat org.apache.spark.scheduler.DAGScheduler.abortStage(DAGScheduler.scala:2790)
Caused by: java.io.IOException: write failed
\tat java.base/java.io.FileOutputStream.write(FileOutputStream.java:349)
Caused by: java.io.IOException: No space left on device
\tat java.base/java.io.FileOutputStream.writeBytes(Native Method)
"""
SAVED = """An error occurred while calling o1.save.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 1.0 failed 1 times
\tat org.apache.spark.scheduler.DAGScheduler.abortStage(DAGScheduler.scala:2790)
Caused by: org.apache.spark.api.python.PythonException: Traceback (most recent call last):
  File "model/predict.py", line 1, in score
    at = self.place(item)
ValueError: no such item

\tat org.apache.spark.api.python.BasePythonRunner$ReaderIterator.handlePythonException(PythonRunner.scala:581)
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
        (RuntimeError(SAVED), "ValueError: no such item"),
        (RuntimeError(WORKER), "ValueError: no such item"),
        (RuntimeError("An error occurred while calling o1.save.\n: java.lang.OutOfMemoryError: Java heap space\n\tat x.y"),
         "java.lang.OutOfMemoryError: Java heap space; give the JVM more: spark.driver_memory"),
        (RuntimeError("[TABLE_OR_VIEW_NOT_FOUND] no table\n'UnresolvedRelation [x]"), "[TABLE_OR_VIEW_NOT_FOUND] no table"),
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), "[Errno 28] No space left on device: '/data/x'; free room where"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "[Errno 111] Connection refused; the JVM is gone"),
        (Py4JNetworkError("Answer from Java side is empty"), "Answer from Java side is empty; the JVM is gone"),
        (RuntimeError("Caused by: java.net.ConnectException: Connection refused"), "java.net.ConnectException: Connection refused"),
        (OSError(), "OSError"),
    ],
)  # fmt: skip
def test_the_deepest_cause_is_told_with_what_to_do(error, told):
    found = reason(error)
    assert found.startswith(told), found
    assert "\n" not in found
    assert ("the JVM is gone" in found) == ("the JVM is gone" in told)


class Kept:
    """The tests' session under a job that would stop it."""

    def __init__(self, spark):
        self.spark = spark

    def __getattr__(self, name):
        return getattr(self.spark, name)

    def stop(self):
        pass


def reads_what_is_broken(context: cli.Context, folder: Path) -> None:
    (folder / "broken.parquet").write_bytes(b"no parquet at all")
    context.spark.read.schema("a INT").parquet(str(folder / "broken.parquet")).agg(F.sum("a")).collect()


def fails_in_a_worker(context: cli.Context, folder: Path) -> None:
    def body(batches):
        raise ValueError("no such item")

    context.spark.range(1).mapInArrow(body, "id BIGINT").write.parquet(str(folder / "out"))


@pytest.mark.spark
@pytest.mark.parametrize(
    ("fails", "says"), [(reads_what_is_broken, r".*broken\.parquet is not a Parquet file"), (fails_in_a_worker, "ValueError: no such item")]
)
def test_a_stage_that_fails_ends_a_job_in_one_line(spark, tmp_path, monkeypatch, capsys, fails, says):
    """It is an error of py4j, and none of PySpark's own."""
    settings = shop.settings(tmp_path)
    monkeypatch.setattr(cli, "open_session", lambda *_: Kept(spark))
    monkeypatch.setattr(cli, "load", lambda _: settings)

    def body(context: cli.Context) -> None:
        with recorded(context.warehouse, "look", None, context.as_of):
            fails(context, tmp_path)

    assert cli.run(body, "look", tmp_path, "2024-02-01T00:00:00Z", "nightly", False) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert re.match(f"error in look: {says}", told[0])
    (failed,) = Warehouse(spark, settings).read(RUNS).collect()
    assert failed.status == "failed"
    assert re.match(says, failed.message)
