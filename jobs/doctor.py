"""Looks at everything a run depends on, and says for each fault what mends it.

Versions, Java, Delta's jars, time zones, the place of the tables, each table's protocol, the registry, and a row through Python
on the executors. What can be looked at without Spark comes first, so that a machine on which Spark does not start is told why.
"""

from __future__ import annotations

import importlib.metadata as metadata
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
import typer
from packaging.requirements import Requirement
from pyspark.sql import SparkSession
from rich.table import Table as Grid

from conf.load import SettingsError, load
from conf.settings import Settings
from features.contracts import TABLES
from jobs.errors import JobError, UsageError
from jobs.failures import reason
from jobs.java import java_problem
from jobs.lists.models import tracking_uri
from jobs.progress import console, fail
from jobs.spark.session import open_session
from jobs.store.table_io import Warehouse
from model.versions import champions
from model.versions.registry import RegistryError

_PACKAGE = "kairos-rec"
_LEAST_FREE = 5 * 2**30
_TASKS = 8
"""Rows an executor's core is sent: enough that none is passed over."""
_S3_LOG_STORE = "io.delta.storage.S3DynamoDBLogStore"


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, and for a fault what mends it."""

    what: str
    level: Literal["ok", "warning", "fault"]
    found: str
    fix: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """All findings, in order. Ends after the fault of a session that does not start."""
    yield from versions(metadata.requires, metadata.version)
    problem = java_problem(os.environ)
    yield (
        Finding("Java", "fault", problem, "as it says")
        if problem
        else Finding("Java", "ok", os.environ.get("JAVA_HOME") or "on PATH")
    )
    yield from place(settings)
    yield registry(settings)
    if problem:
        return
    try:
        spark = open_session(settings.spark, "kairos-doctor")
    except JobError as error:
        yield Finding("Spark session", "fault", str(error), "mend what it names; then run the doctor again")
        return
    try:
        yield Finding("Spark session", "ok", f"Spark {spark.version}, {spark.sparkContext.master}, with Delta")
        yield from zones(spark)
        yield log_store(settings, lambda key: spark.conf.get(key, ""))
        yield from tables(Warehouse(spark, settings))
        yield from executors(spark)
    finally:
        spark.stop()


def versions(requires: Callable[[str], list[str] | None], version: Callable[[str], str]) -> Iterator[Finding]:
    """Python, and each dependency beside what the package asks for."""
    told = ".".join(map(str, sys.version_info[:3]))
    yield Finding("Python", "ok" if sys.version_info >= (3, 11) else "fault", told, "install Python 3.11 or newer")
    try:
        wanted = [Requirement(line) for line in requires(_PACKAGE) or ()]
    except metadata.PackageNotFoundError:
        yield Finding(
            "versions",
            "warning",
            f"{_PACKAGE} is not installed here: its dependencies cannot be told",
            "pip install the wheel",
        )
        return
    wrong = []
    for one in wanted:
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        try:
            have = version(one.name)
        except metadata.PackageNotFoundError:
            have = "missing"
        if have == "missing" or not one.specifier.contains(have, prereleases=True):
            wrong.append(f"{one.name} {have}, {one.specifier} is needed")
    if wrong:
        yield Finding("versions", "fault", "; ".join(wrong), f"pip install --upgrade {_PACKAGE}, or make install")
    else:
        yield Finding(
            "versions",
            "ok",
            ", ".join(f"{name} {version(name)}" for name in ("pyspark", "delta-spark", "torch", "mlflow")),
        )


def place(settings: Settings) -> Iterator[Finding]:
    """The folder of the tables: may it be written, and is there room."""
    if "://" in settings.warehouse or settings.catalog:
        return
    folder = Path(settings.warehouse).absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        yield Finding(
            "warehouse",
            "fault",
            f"{there} may not be written",
            "give this user the right, or set warehouse to another folder",
        )
        return
    free = shutil.disk_usage(there).free
    told = f"{folder}: {free / 2**30:.1f} GiB free"
    few = free < _LEAST_FREE
    yield Finding(
        "warehouse", "warning" if few else "ok", told, "free some, or run jobs/maintain.py retain, then vacuum"
    )


def registry(settings: Settings) -> Finding:
    """Whether MLflow answers, and who is champion."""
    uri, name = tracking_uri(settings), settings.mlflow.model
    try:
        holder = champions.current(uri, name)
    except RegistryError as error:
        return Finding(
            "registry",
            "fault",
            str(error),
            "start MLflow, or mend mlflow.tracking_uri; mlflow.on_unreachable decides meanwhile",
        )
    if holder is None:
        return Finding("registry", "warning", f"model {name!r} has no champion at {uri}", "run jobs/train_model.py")
    return Finding("registry", "ok", f"version {holder.version} of {name!r} is champion")


def zones(spark: SparkSession) -> Iterator[Finding]:
    """UTC in the session and in the JVM."""
    session = spark.conf.get("spark.sql.session.timeZone", "")
    yield Finding(
        "session time zone",
        "ok" if session == "UTC" else "fault",
        str(session),
        "set spark.sql.session.timeZone to UTC",
    )
    virtual = spark.sparkContext._jvm.java.util.TimeZone.getDefault().getID()  # type: ignore[union-attr]
    told = "set spark.driver.extraJavaOptions and spark.executor.extraJavaOptions to -Duser.timezone=UTC"
    yield Finding("JVM time zone", "ok" if virtual in ("UTC", "Etc/UTC", "GMT") else "warning", virtual, told)


def log_store(settings: Settings, conf: Callable[[str], str | None]) -> Finding:
    """Whether two writers of one table are safe from each other."""
    scheme = settings.warehouse.partition("://")[0] if "://" in settings.warehouse else "file"
    if scheme == "file":
        return Finding("log store", "ok", "local files: one machine, where a lock file a table keeps writers apart")
    if scheme in ("s3", "s3a", "s3n") and conf(f"spark.delta.logStore.{scheme}.impl") != _S3_LOG_STORE:
        told = f"on {scheme} Delta's default log store is safe for one driver only, and night and hour are two"
        return Finding(
            "log store",
            "fault",
            told,
            f"set spark.delta.logStore.{scheme}.impl={_S3_LOG_STORE}, with its DynamoDB table",
        )
    return Finding("log store", "ok", f"{scheme}: commits are exclusive")


def tables(warehouse: Warehouse) -> Iterator[Finding]:
    """Each table: ours, and readable by whoever knows Delta's first protocol. Asked of another engine than Spark."""
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    good, missing = [], []
    for table in TABLES.values():
        if not warehouse.exists(table):
            missing.append(table.name)
            continue
        try:
            warehouse.read(table)
            needs = DeltaTable(warehouse.path(table)).protocol().min_reader_version
        except (JobError, DeltaError, OSError) as error:
            yield Finding(
                f"table {table.name}",
                "fault",
                str(error).splitlines()[0],
                f"restore an earlier version, or run {table.owner} again",
            )
            continue
        if needs > 1:
            told = f"readers must know protocol {needs}: pandas, polars and DuckDB may read it wrongly"
            fix = "ALTER TABLE … DROP FEATURE what was switched on (deletionVectors, columnMapping), or make the table anew"
            yield Finding(f"table {table.name}", "fault", told, fix)
        else:
            good.append(table.name)
    yield Finding(
        "tables",
        "ok",
        f"{len(good)} are ours and at reader version 1" + (f"; not made yet: {', '.join(missing)}" if missing else ""),
    )


def executors(spark: SparkSession) -> Iterator[Finding]:
    """A row through Python on the executors: the same Python, the same libraries, the same clock zone as here."""
    context = spark.sparkContext
    workers = max(1, len(context._jsc.sc().statusTracker().getExecutorInfos()))
    tasks = max(context.defaultParallelism, workers) * _TASKS
    try:
        rows = (
            spark.range(0, tasks, 1, tasks)
            .mapInArrow(_tell, "host STRING, told STRING")
            .distinct()
            .limit(1_000)
            .collect()
        )
    except Exception as error:  # whatever a worker dies of is the finding
        yield Finding(
            "executors",
            "fault",
            reason(error),
            "install the same environment on them; set PYSPARK_PYTHON to its Python",
        )
        return
    mine = _about()
    other = sorted({f"{row['host']}: {row['told']}" for row in rows if row["told"] != mine})
    if other:
        yield Finding(
            "executors", "fault", f"here {mine}; {'; '.join(other[:3])}", "install the same environment everywhere"
        )
    else:
        hosts = len({row["host"] for row in rows})
        yield Finding("executors", "ok", f"{tasks} rows through Python on {hosts} host(s): {mine}")


def _tell(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for _ in batches:
        time.sleep(0.05)  # so that a quick executor leaves some for the others
        yield pa.RecordBatch.from_pydict({"host": [socket.gethostname()], "told": [_about()]})


def _about() -> str:
    names = ("pyspark", "pyarrow", "numpy", "torch")
    return ", ".join(
        [
            f"Python {sys.version_info.major}.{sys.version_info.minor}",
            *(f"{name} {metadata.version(name)}" for name in names),
        ]
    )


def main(settings: Annotated[Path, typer.Option(help="settings file, e.g. conf/completejourney.yaml")]) -> None:
    """Look at everything a run depends on.

    Exit codes: 0 nothing that stops a run · 2 a fault
    """
    colours, faults = {"ok": "green", "warning": "yellow", "fault": "red"}, 0
    grid = Grid("", "what", "found", "what mends it")
    try:
        for finding in examine(load(settings)):
            faults += finding.level == "fault"
            mark = f"[{colours[finding.level]}]{finding.level}[/]"
            grid.add_row(
                mark, finding.what, finding.found.replace("[", r"\["), "" if finding.level == "ok" else finding.fix
            )
    except SettingsError as error:
        sys.exit(fail("doctor", UsageError(str(error))))
    console.print(grid)
    sys.exit(2 if faults else 0)


if __name__ == "__main__":
    typer.run(main)
