"""The ``runs`` table: one row for each run of each job, also for those that failed.

The only place that reads the wall clock, and only to tell people when and how long.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from features.contracts import RUNS
from jobs import progress
from jobs.failures import THROWN, reason
from jobs.store.table_io import Warehouse, schema


@dataclass
class Run:
    """What a job tells about itself while it runs."""

    job: str
    mode: str | None
    as_of: datetime
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    counts: dict[str, int] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)
    model_version: str | None = None
    message: str | None = None


@contextlib.contextmanager
def recorded(warehouse: Warehouse, job: str, mode: str | None, as_of: datetime) -> Iterator[Run]:
    """Run a job's body and append its row to ``runs``, whatever happens; then print its counts."""
    run = Run(job, mode, as_of)
    started, tick = datetime.now(UTC), time.monotonic()
    warehouse.begin(run.run_id)
    progress.start(job, mode, as_of)
    try:
        yield run
    except BaseException as error:
        run.message = (reason(error) if isinstance(error, THROWN) else " ".join(str(error).split()))[:2000] or type(error).__name__
        with contextlib.suppress(Exception):  # the first failure is the one to report
            _append(warehouse, run, "failed", started, time.monotonic() - tick)
        raise
    seconds = time.monotonic() - tick
    _append(warehouse, run, "ok", started, seconds)
    progress.finish(job, seconds, run.counts, run.message)


def finished(warehouse: Warehouse, job: str) -> DataFrame | None:
    """The rows of ``runs`` of a job's runs that ended well; None before any run. Bookkeeping, so no input of the reader."""
    if not warehouse.exists(RUNS):
        return None
    rows = warehouse.read(RUNS).where((F.col("job") == job) & (F.col("status") == "ok"))
    warehouse.inputs.pop(RUNS.name)
    return rows


def _append(warehouse: Warehouse, run: Run, status: str, started: datetime, seconds: float) -> None:
    row = (
        run.run_id, run.job, run.mode, run.as_of, status, run.message, started, seconds,
        warehouse.inputs | run.sources, dict(warehouse.outputs), run.counts, run.model_version,
        warehouse.settings.fingerprint(),
    )  # fmt: skip
    warehouse.append(RUNS, warehouse.spark.createDataFrame([row], schema(RUNS)).coalesce(1))
