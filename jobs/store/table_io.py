"""Every read and write of a table, through its contract. The only module that knows Delta."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import reduce
from pathlib import Path
from typing import Any

from delta.tables import DeltaTable
from py4j.java_gateway import JavaObject
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructField, StructType

from conf import columns as c
from conf.settings import Settings
from features.contracts import Table
from features.windows import from_micros
from jobs.errors import DataQualityError
from jobs.store.leases import lease, retried

SCHEMA_VERSION = 1
_PROPERTIES = {
    "delta.minReaderVersion": "1",
    "delta.minWriterVersion": "2",
    "kairos.schemaVersion": str(SCHEMA_VERSION),
}
# Delta's own limit is a week; ours is a setting (jobs/maintain.py). Spark lists folders with 10,000 tasks otherwise.
_VACUUM = {
    "spark.databricks.delta.retentionDurationCheck.enabled": "false",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "64",
}
_METADATA_CONF = "spark.databricks.delta.commitInfo.userMetadata"


class Warehouse:
    """The tables of one deployment: Delta paths under ``settings.warehouse``, or names under ``settings.catalog``.

    ``inputs`` and ``outputs`` collect table -> Delta version of all that was read and written since ``begin``.
    """

    def __init__(self, spark: SparkSession, settings: Settings) -> None:
        self.spark = spark
        self.settings = settings
        self.inputs: dict[str, int] = {}
        self.outputs: dict[str, int] = {}
        self._checked: set[str] = set()
        self._run_id = ""

    def begin(self, run_id: str) -> None:
        """Start collecting versions for a new run."""
        self._run_id = run_id
        self.inputs, self.outputs = {}, {}

    # -- where ---------------------------------------------------------------------------------------------------

    def path(self, table: Table) -> str:
        """Where the table lies; for a catalog table, as the catalog says."""
        if self.settings.catalog:
            return str(self._snapshot(table).deltaLog().dataPath().toString())
        root = self.settings.warehouse
        return f"{root.rstrip('/')}/{table.name}" if "://" in root else str(Path(root).absolute() / table.name)

    def sql_name(self, table: Table) -> str:
        """The table as SQL names it."""
        return f"{self.settings.catalog}.{table.name}" if self.settings.catalog else f"delta.`{self.path(table)}`"

    def _delta(self, table: Table) -> DeltaTable:
        if self.settings.catalog:
            return DeltaTable.forName(self.spark, self.sql_name(table))
        return DeltaTable.forPath(self.spark, self.path(table))

    def exists(self, table: Table) -> bool:
        """Whether the table has been created."""
        if self.settings.catalog:
            return self.spark.catalog.tableExists(self.sql_name(table))
        return DeltaTable.isDeltaTable(self.spark, self.path(table))

    def version(self, table: Table) -> int:
        """The newest version of an existing table."""
        return int(self._snapshot(table).version())

    def _snapshot(self, table: Table) -> JavaObject:
        """Delta's own view of the newest version. The public API starts Spark jobs to tell the same: seconds a table, each run."""
        nothing = self.spark._jvm.scala.Option.empty()  # type: ignore[union-attr]
        return self._delta(table)._jdt.deltaLog().update(False, nothing, nothing)

    def _last_commit(self, table: Table) -> tuple[int, dict[str, Any]]:
        """The newest version, and what its commit says of itself."""
        version, log = self.version(table), self._delta(table)._jdt.deltaLog()
        names = self.spark._jvm.org.apache.spark.sql.delta.util.FileNames  # type: ignore[union-attr]
        actions = log.store().read(names.unsafeDeltaFile(log.logPath(), version), log.newDeltaHadoopConf()).iterator()
        while actions.hasNext():
            action = json.loads(actions.next())
            if "commitInfo" in action:
                return version, action["commitInfo"]
        return version, {}

    def had_read(self, table: Table, other: Table) -> int | None:
        """The version of another table that the last commit to this one had read; None if it does not say."""
        said = json.loads(self._last_commit(table)[1].get("userMetadata") or "{}")
        return said.get("inputs", {}).get(other.name)

    # -- read ----------------------------------------------------------------------------------------------------

    def read(self, table: Table, version: int | None = None) -> DataFrame:
        """The table at its newest version, or at an earlier one. The version is recorded.

        Raises DataQualityError when the table is not there or not ours.
        """
        if not self.exists(table):
            raise DataQualityError(
                f"table {table.name} does not exist at {self._where(table)}; run {table.owner} first"
            )
        self._check_schema(table)
        version = self.version(table) if version is None else version
        self.inputs[table.name] = version
        reader = self.spark.read.format("delta").option("versionAsOf", version)
        frame = reader.table(self.sql_name(table)) if self.settings.catalog else reader.load(self.path(table))
        return frame.select(*table.column_names)

    def added_since(self, table: Table, version: int) -> DataFrame:
        """The rows that commits after ``version`` added, up to the newest version, which is recorded.

        Raises DataQualityError when one of them did anything else than add, so that rows read before may be gone.
        """
        newest = self.version(table)
        self.inputs[table.name] = newest
        if newest == version:
            return self.read(table, version).limit(0)
        reader = self.spark.read.format("delta").option("readChangeFeed", "true").option("startingVersion", version + 1)
        reader = reader.option("endingVersion", newest)
        feed = reader.table(self.sql_name(table)) if self.settings.catalog else reader.load(self.path(table))
        if not feed.where("_change_type <> 'insert'").isEmpty():
            raise DataQualityError(
                f"rows of table {table.name} at {self._where(table)} were changed or deleted after version {version}; "
                "run jobs/nightly.py, which reads the whole table"
            )
        return feed.select(*table.column_names)

    def partition(self, table: Table, as_of: datetime) -> DataFrame:
        """The rows of one as_of."""
        return self.read(table).where(F.col(c.AS_OF_TS) == F.lit(as_of))

    def moments(self, *tables: Table) -> set[datetime]:
        """Every as_of for which all of the tables have a partition."""
        if not all(self.exists(table) for table in tables):
            return set()
        # Epoch microseconds, because collected timestamps would take on the driver's local time zone.
        each = [self.read(t).select(F.lit(t.name).alias("name"), F.unix_micros(c.AS_OF_TS).alias("us")) for t in tables]
        rows = reduce(DataFrame.unionByName, each).distinct().groupBy("us").count()
        return {from_micros(row["us"]) for row in rows.where(F.col("count") == len(tables)).collect()}

    def _where(self, table: Table) -> str:
        return self.sql_name(table) if self.settings.catalog else self.path(table)

    def _check_schema(self, table: Table) -> None:
        if table.name in self._checked:
            return
        metadata = self._snapshot(table).metadata()
        stated = metadata.configuration().get("kairos.schemaVersion")
        found = int(stated.get()) if stated.isDefined() else 0
        if found > SCHEMA_VERSION:
            raise DataQualityError(
                f"table {table.name} at {self._where(table)} has schema version {found}, newer than the {SCHEMA_VERSION} "
                "that this installation knows; upgrade kairos-rec (pip install -U kairos-rec) or point warehouse elsewhere"
            )
        fields = StructType.fromJson(json.loads(metadata.schemaString())).fields
        have = {f.name: f.dataType.simpleString() for f in fields}
        want = {f.name: f.dataType.simpleString() for f in schema(table).fields}
        wrong = [f"{k}: found {have.get(k, 'nothing')}, expected {t}" for k, t in want.items() if have.get(k) != t]
        if wrong:
            raise DataQualityError(
                f"table {table.name} at {self._where(table)} breaks its contract: {'; '.join(wrong)}; where another "
                f"version of Kairos made it, move it away and run {table.owner} again, or point warehouse elsewhere"
            )
        self._checked.add(table.name)

    # -- write ---------------------------------------------------------------------------------------------------

    def append(self, table: Table, frame: DataFrame) -> int:
        """Add rows. Returns how many."""
        return retried(table, lambda: self._write(table, frame, "append", None))

    def overwrite(self, table: Table, frame: DataFrame) -> int:
        """Replace the whole table in one commit. Returns how many rows it has now."""
        return self._write(table, frame, "overwrite", None)

    def replace(self, table: Table, frame: DataFrame, where: str) -> int:
        """Replace exactly the rows that match ``where`` in one commit; each written row must match it too."""
        return self._write(table, frame, "overwrite", where)

    def _write(self, table: Table, frame: DataFrame, mode: str, where: str | None) -> int:
        self.create(table)
        writer = frame.select(*table.column_names).write.format("delta")
        writer = writer.mode(mode).option("userMetadata", self._metadata())
        if where:
            writer = writer.option("replaceWhere", where)
        with lease(self.settings, [table], 60):
            writer.saveAsTable(self.sql_name(table)) if self.settings.catalog else writer.save(self.path(table))
            return self._committed(table)

    def delete(self, table: Table, where: str) -> None:
        """Delete the rows that match ``where`` in one commit. Their files stay until ``vacuum``."""
        with lease(self.settings, [table], 60), self._session_metadata():
            retried(table, lambda: self._delta(table).delete(where))
            self._committed(table)

    def optimize(self, table: Table) -> int:
        """Join small files in one commit that changes no row. Returns how many were joined."""
        with lease(self.settings, [table], 60), self._session_metadata():
            told = retried(table, lambda: self._delta(table).optimize().executeCompaction().first())
            self._committed(table)
        return int(told["metrics"]["numFilesRemoved"])  # type: ignore[index]

    def vacuum(self, table: Table, age: timedelta, dry_run: bool = False) -> int:
        """Delete the files that no version younger than ``age`` needs. Returns how many there are; with ``dry_run``, that is all."""
        statement = f"VACUUM {self.sql_name(table)} RETAIN {age.total_seconds() / 3600} HOURS"
        kept = {name: self.spark.conf.get(name, None) for name in _VACUUM}
        for name, value in _VACUUM.items():
            self.spark.conf.set(name, value)
        try:
            found = self.spark.sql(f"{statement} DRY RUN").count()
            if found and not dry_run:
                with lease(self.settings, [table], 60):
                    self.spark.sql(statement)
            return found
        finally:
            for name, was in kept.items():
                self.spark.conf.unset(name) if was is None else self.spark.conf.set(name, was)

    def create(self, table: Table) -> None:
        """Create the table from its contract where it does not exist, with comments and reader version 1."""
        if self.exists(table):
            self._check_schema(table)
            return
        builder = DeltaTable.createIfNotExists(self.spark)
        builder = builder.tableName(self.sql_name(table)) if self.settings.catalog else builder.location(self.path(table))
        builder = builder.comment(f"{table.row} (owner: {table.owner})").addColumns(schema(table))
        for key, value in _PROPERTIES.items():
            builder = builder.property(key, value)
        if table.change_feed:
            builder = builder.property("delta.enableChangeDataFeed", "true").property("delta.minWriterVersion", "4")
        if table.partition_by:
            # Minima and maxima of what is not in the key cost much and spare nothing: a partition is read whole or by key.
            indexed = str(len(set(table.key) - set(table.partition_by)))
            builder = builder.partitionedBy(*table.partition_by).property("delta.dataSkippingNumIndexedCols", indexed)
        with lease(self.settings, [table], 60):
            builder.execute()
        self._checked.add(table.name)

    def _committed(self, table: Table) -> int:
        self.outputs[table.name], commit = self._last_commit(table)
        return int(commit.get("operationMetrics", {}).get("numOutputRows", 0))

    def _metadata(self) -> str:
        return json.dumps({"run_id": self._run_id, "settings": self.settings.fingerprint(), "inputs": self.inputs}, sort_keys=True)

    @contextlib.contextmanager
    def _session_metadata(self) -> Iterator[None]:
        # A DELETE takes its user metadata from the session only.
        self.spark.conf.set(_METADATA_CONF, self._metadata())
        try:
            yield
        finally:
            self.spark.conf.unset(_METADATA_CONF)

    @contextlib.contextmanager
    def lease(self, tables: Sequence[Table]) -> Iterator[None]:
        """Hold the tables for the length of a job. Raises BusyError at once when another process has one."""
        with lease(self.settings, tables):
            yield


def schema(table: Table) -> StructType:
    """The contract as a Spark schema, with a comment on each column."""
    parsed = StructType.fromDDL(", ".join(f"{column.name} {column.type}" for column in table.columns))
    fields = parsed.fields if isinstance(parsed, StructType) else []
    pairs = zip(fields, table.columns, strict=True)
    return StructType(
        [StructField(f.name, f.dataType, column.nullable, {"comment": column.comment}) for f, column in pairs]
    )
