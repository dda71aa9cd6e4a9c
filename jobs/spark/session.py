"""The Spark session: UTC, Delta, quiet. One per process; a chain of jobs shares it."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from py4j.java_gateway import JavaClass
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from conf.settings import Spark
from jobs.errors import UsageError
from jobs.java import check_java
from jobs.spark import class_archive, jvm_names

DELTA_PACKAGE = "io.delta:delta-spark_4.2_2.13"
_DELTA: dict[str, Any] = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}
# Set on every session, whoever started the JVM: they decide what the rows are, or how long small tables take.
_RUNTIME: dict[str, Any] = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.databricks.delta.commit.idempotencyCheck.enabled": "true",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "512",
    "spark.sql.debug.maxToStringFields": "1000",
    # pandas writes nanoseconds, which Spark refuses; as a number they are read like any epoch time.
    "spark.sql.legacy.parquet.nanosAsLong": "true",
    # Spark's default, INT96, has no statistics in parquet, and a filter on time would skip nothing.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # Two tables that lie by user are joined by (user, item) where they lie.
    "spark.sql.requireAllClusterKeysForCoPartition": "false",
    # Lists are collected in a hash table until it has so many keys; Spark's 128 would sort almost everything.
    "spark.sql.objectHashAggregate.sortBased.fallbackThreshold": "20000",
    # A hundred thousand items are 30 MB: in Spark's 64 MB one core would have them all.
    "spark.sql.adaptive.advisoryPartitionSizeInBytes": "12m",
}
#: Logs of the JVMs that this process has started, to be removed when it ends.
_logs: list[Path] = []
# Only matter before the JVM is up, so only where this process starts it.
_JVM = "spark.driver.extraJavaOptions"
_STATIC: dict[str, Any] = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    # Else each call of a column function tells the JVM its line of Python first, which is half of making a plan.
    "spark.python.sql.dataFrameDebugging.enabled": "false",
    "spark.sql.adaptive.coalescePartitions.parallelismFirst": "false",
    # Classes made for plans; Spark keeps 100, and would compile those of an hour anew in the next one. Their code must fit, too.
    "spark.sql.codegen.cache.maxEntries": "1000",
    _JVM: "-Duser.timezone=UTC -XX:+UseParallelGC -XX:ReservedCodeCacheSize=512m",
    "spark.executor.extraJavaOptions": "-Duser.timezone=UTC",
}


def open_session(settings: Spark, app: str = "kairos", jvm_options: str | None = None) -> SparkSession:
    """The session of this process, started here or by spark-submit. ``jvm_options``: instead of those for the class archive.

    Raises UsageError when Java or Delta is missing or the JVM does not start.
    """
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    if submitted:
        session = SparkSession.builder.appName(app).config(map=_DELTA | _RUNTIME).getOrCreate()
    else:
        check_java()
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        session = _start(settings, app, class_archive.use() if jvm_options is None else jvm_options)
    for key, value in _RUNTIME.items():
        session.conf.set(key, value)
    session.conf.set("spark.sql.shuffle.partitions", str(settings.shuffle_partitions))
    _need_delta(session)
    jvm_names.remember(session)
    return session


def _start(settings: Spark, app: str, jvm_options: str) -> SparkSession:
    conf = _DELTA | _RUNTIME | _STATIC | settings.conf
    conf[_JVM] = f"{conf[_JVM]} {jvm_options}".strip()
    conf["spark.driver.memory"] = settings.driver_memory
    if "spark.jars" not in conf and "spark.jars.packages" not in conf:
        conf["spark.jars.packages"] = f"{DELTA_PACKAGE}:{version('delta-spark')}"
    builder = SparkSession.builder.appName(app).master(settings.master).config(map=conf)
    with _noise_to_file() as log:
        try:
            session = builder.getOrCreate()
        except (PySparkException, OSError) as error:
            tail = " / ".join(log.read_text(errors="replace").split("\n")[-4:])
            raise UsageError(f"Spark did not start ({error}); the end of its log: {tail}; whole log: {log}") from error
    _logs.append(log)
    return session


def kept_log() -> str:
    """The words that point to Spark's log, which from now on is not removed when this process ends; empty without one."""
    told = ", ".join(map(str, _logs))
    _logs.clear()
    return f"; Spark's log: {told}" if told else ""


@atexit.register
def _drop_logs() -> None:
    if getattr(sys, "last_value", None) is None:  # what nobody caught may have its reason there
        for log in _logs:
            log.unlink(missing_ok=True)


@contextlib.contextmanager
def _noise_to_file() -> Iterator[Path]:
    """Send this process's and the new JVM's stderr to a file while Spark starts.

    The JVM keeps that file for its life: Ivy's and log4j's lines stay out of a person's sight, but are not lost.
    """
    handle, name = tempfile.mkstemp(prefix="kairos-spark-", suffix=".log")
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(handle, 2)
    try:
        yield Path(name)
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(handle)


def _need_delta(session: SparkSession) -> None:
    # py4j gives a package, not a class, for a name that the JVM cannot load.
    found = session.sparkContext._jvm.io.delta.tables.DeltaTable  # type: ignore[union-attr]
    if not isinstance(found, JavaClass):
        raise UsageError(
            "Delta Lake is not on Spark's class path: submit with "
            f"--packages {DELTA_PACKAGE}:{version('delta-spark')} (or --jars with the same jars)"
        )


def main() -> None:
    """Part of the installation: start a session once, so that the jars are in the local cache, and keep the classes it loads."""
    session = open_session(Spark(), "kairos-warm-up", class_archive.make())
    class_archive.rehearse(session)
    class_archive.finish(session)


if __name__ == "__main__":
    main()
