"""Raw data as the settings point to it: which files there are, which are new, and how they are read."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable
from pathlib import Path

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.sources import EventSource, ItemSource
from jobs.errors import DataQualityError, UsageError
from jobs.store.run_log import finished
from jobs.store.table_io import Warehouse

Source = EventSource | ItemSource
_SUFFIX = {"parquet": (".parquet",), "csv": (".csv", ".csv.gz"), "json": (".json", ".jsonl", ".json.gz", ".jsonl.gz")}
_OPTIONS = {"csv": {"header": "true", "mode": "PERMISSIVE", "escape": '"'}}


def files(spark: SparkSession, source: Source) -> dict[str, int]:
    """Path of each source file -> a fingerprint of its size and time of change. A Delta source is one entry, its version.

    Raises UsageError when nothing is there.
    """
    root = locate(source)
    if source.format == "delta":
        try:
            return {root: int(spark.sql(f"DESCRIBE HISTORY delta.`{root}` LIMIT 1").first()["version"])}  # type: ignore[index]
        except AnalysisException as error:
            raise UsageError(
                f"source.{_kind(source)}.path: no Delta table at {root}: {str(error).splitlines()[0]}"
            ) from None
    found = _remote(spark, root) if "://" in root else _local(Path(root), source)
    if not found:
        raise UsageError(
            f"source.{_kind(source)}.path: no {source.format} file at {root}; check the path in the settings"
        )
    return {path: _fingerprint(path, size, changed) for path, size, changed in found}


def unread(warehouse: Warehouse, found: dict[str, int]) -> dict[str, int]:
    """Those of the files that no finished ingest has read as they are now."""
    done = finished(warehouse, "ingest")
    if done is None:
        return found
    read_before = done.select(F.explode("inputs").alias("path", "fingerprint")).where(F.col("path").isin(list(found)))
    seen = {(row["path"], row["fingerprint"]) for row in read_before.distinct().collect()}
    return {path: mark for path, mark in found.items() if (path, mark) not in seen}


def read(spark: SparkSession, source: Source, paths: Iterable[str]) -> DataFrame:
    """The raw rows, all columns as the source has them. Raises DataQualityError when a mapped column is missing."""
    reader = spark.read.options(**_OPTIONS.get(source.format, {}))
    if source.format == "delta":
        raw = reader.format("delta").load(locate(source))
    else:
        raw = reader.format(source.format).load(sorted(paths))
    mapped = source.columns.model_dump(exclude_none=True)
    attributes = mapped.pop("attributes", ())
    missing = [f"{key}: {name}" for key, name in mapped.items() if name not in raw.columns]
    missing += [f"attributes: {name}" for name in attributes if name not in raw.columns]
    if missing:
        raise DataQualityError(
            f"source.{_kind(source)} at {locate(source)} lacks mapped columns ({'; '.join(missing)}); "
            f"it has: {', '.join(raw.columns)}; mend source.{_kind(source)}.columns in the settings"
        )
    return raw


def locate(source: Source) -> str:
    """The source's root: a URL, an absolute path, or a path inside an installed package."""
    if source.package is None:
        return source.path if "://" in source.path else str(Path(source.path).absolute())
    spec = importlib.util.find_spec(source.package)
    if spec is None or spec.origin is None:
        raise UsageError(
            f"source.{_kind(source)}.package {source.package} is not installed; run: pip install {source.package.replace('_', '-')}"
        )
    return str(Path(spec.origin).parent / source.path)


def _kind(source: Source) -> str:
    return "events" if isinstance(source, EventSource) else "items"


def _local(root: Path, source: Source) -> list[tuple[str, int, int]]:
    if root.is_dir():
        paths = sorted(p for p in root.rglob("*") if p.is_file() and p.name.endswith(_SUFFIX[source.format]))
    elif root.exists():
        paths = [root]
    else:
        paths = sorted(root.parent.glob(root.name))
    return [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in paths]


def _remote(spark: SparkSession, root: str) -> list[tuple[str, int, int]]:
    jvm = spark.sparkContext._jvm
    path = jvm.org.apache.hadoop.fs.Path(root)  # type: ignore[union-attr]
    system = path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())
    entries = system.globStatus(path) or []
    found = []
    for entry in entries:
        inner = system.listStatus(entry.getPath()) if entry.isDirectory() else [entry]
        found += [
            (f.getPath().toString(), f.getLen(), f.getModificationTime()) for f in inner if f.isFile() and f.getLen()
        ]
    return sorted(found)


def _fingerprint(path: str, size: int, changed: int) -> int:
    digest = hashlib.sha256(f"{path} {size} {changed}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
