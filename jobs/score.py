"""Features and the champion -> ``recommendations`` (all history) and ``recommendations_latest`` (what to show now).

Nightly: everyone. Hourly: users with new events, and those whose shown lists are stale. Both: the list of user ``*``, for whoever
has no visible history.
A batch is scored, checked, written, and only then shown; a check that fails publishes nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pyarrow as pa
from pyspark import SparkFiles, TaskContext
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from features.contracts import (
    RECOMMENDATIONS,
    RECOMMENDATIONS_LATEST,
    USER_ITEM_REPEATS,
    USER_PROFILES,
    USER_SEQUENCES,
)
from features.user_inputs import EVERYONE_ELSE, user_inputs, with_everyone_else
from jobs import cli
from jobs.build_features import at, sorted_by_key
from jobs.cli import Context
from jobs.errors import DataQualityError
from jobs.lists.checks import check_batch
from jobs.lists.models import prepared, usable
from jobs.lists.publish import publish
from jobs.progress import console, step
from jobs.store.leases import retried
from jobs.store.run_log import recorded
from jobs.store.table_io import Warehouse
from model import predict

__all__ = ["EVERYONE_ELSE", "known_users", "score", "scored"]

_SCORED = "user_id STRING, rank INT, item_id STRING, score DOUBLE, reason STRING, cold BOOLEAN"


def score(context: Context) -> None:
    """Score the users that have features at as_of with the model that may be used there."""
    warehouse, settings = context.warehouse, context.settings
    if context.dry_run:
        console.print(f"score would write a {context.mode} batch at {context.as_of:%Y-%m-%dT%H:%MZ}")
        return
    with (
        warehouse.lease([RECOMMENDATIONS, RECOMMENDATIONS_LATEST]),
        recorded(warehouse, "score", context.mode, context.as_of) as run,
    ):
        model = usable(settings, context.as_of)
        run.model_version = model.version
        users = _users(context)
        context.spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", settings.scoring.batch_users)
        with step(context.spark, "prepare the catalogue"), prepared(context, model) as catalogue:
            batch = sorted_by_key(RECOMMENDATIONS, _listed(context, scored(users, catalogue), model.version)).persist()
            try:
                with step(context.spark, "score and check"):
                    run.counts |= check_batch(context, batch, _asked(context))
                with step(context.spark, "write recommendations"):
                    mine = f"{at([context.as_of])} AND {c.MODE} = '{context.mode}'"
                    _need_all(warehouse.replace(RECOMMENDATIONS, batch, mine), run.counts["rows"])
                with step(context.spark, "publish recommendations_latest"):
                    run.message = retried(RECOMMENDATIONS_LATEST, lambda: publish(context, batch))
            finally:
                batch.unpersist()


def _asked(context: Context) -> int:
    """How many users are to have a list: counted where they lie, and not by making the scorer's input a second time."""
    return context.warehouse.partition(USER_SEQUENCES, context.as_of).where(F.col(c.USER_ID) != EVERYONE_ELSE).count() + 1


def _need_all(written: int, checked: int) -> None:
    if written != checked:
        raise DataQualityError(
            f"{written:,} rows were written to {RECOMMENDATIONS.name} and {checked:,} were checked; nothing was published; run score again"
        )


def known_users(warehouse: Warehouse, as_of: datetime) -> DataFrame:
    """``user_inputs`` of everyone who has features at as_of."""
    tables = (USER_SEQUENCES, USER_PROFILES, USER_ITEM_REPEATS)
    return user_inputs(*(warehouse.partition(table, as_of) for table in tables))


def _users(context: Context) -> DataFrame:
    users = with_everyone_else(known_users(context.warehouse, context.as_of), context.as_of)
    return users.repartition(context.spark.sparkContext.defaultParallelism, c.USER_ID).sortWithinPartitions(c.USER_ID)


def scored(users: DataFrame, catalogue: str) -> DataFrame:
    """The lists of users (``user_inputs``) by the model and the moment that ``prepared`` has shipped under this name."""
    return users.mapInArrow(_scorer(catalogue), _SCORED)


def _scorer(catalogue: str) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The body of the UDF. The prepared folder travels with the job; each Python worker maps it once."""

    def body(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        task = TaskContext.get()
        gpu = task.resources().get("gpu") if task is not None else None
        if gpu is not None:  # Spark lends a task a device by its number, and leaves it to the task to use no other
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpu.addresses)
        yield from predict.score_batches(batches, SparkFiles.get(catalogue))

    return body


def _listed(context: Context, lists: DataFrame, version: str) -> DataFrame:
    horizon = context.settings.horizon
    if context.mode == "hourly" and context.settings.hourly_horizon:
        horizon = context.settings.hourly_horizon
    return lists.select(
        F.lit(context.as_of).alias(c.AS_OF_TS), c.USER_ID, c.RANK, c.ITEM_ID, c.SCORE, c.REASON,
        F.lit(context.mode).alias(c.MODE), c.COLD,
        F.lit(batch_id(context, version)).alias(c.BATCH_ID),
        F.lit(version).alias(c.MODEL_VERSION),
        F.lit(context.as_of + timedelta(seconds=horizon.total_seconds())).alias(c.VALID_UNTIL_TS),
    )  # fmt: skip


def batch_id(context: Context, version: str) -> str:
    """The same run, repeated, is the same batch."""
    text = f"{context.mode} {context.as_of.isoformat()} {context.settings.mlflow.model} {version}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


if __name__ == "__main__":
    cli.main("score", score, "Recommendation lists by the champion model.", modes=True)
