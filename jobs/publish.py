"""A checked batch -> ``recommendations_latest``, in one commit: a reader sees each list whole, old or new."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from features.contracts import RECOMMENDATIONS, RECOMMENDATIONS_LATEST
from jobs.cli import Context

_GONE = "s.item_id IS NULL"


def publish(context: Context, batch: DataFrame) -> str | None:
    """Show the batch, except to users whose shown list is newer. Returns a note, if there is one to make."""
    warehouse = context.warehouse
    if not warehouse.exists(RECOMMENDATIONS_LATEST):
        warehouse.overwrite(RECOMMENDATIONS_LATEST, batch)
        return None
    shown = warehouse.read(RECOMMENDATIONS_LATEST)
    if context.mode == "nightly":
        return _publish_night(context, batch, shown)
    newer = shown.where(F.col(c.AS_OF_TS) > F.lit(context.as_of)).select(c.USER_ID).distinct()
    mine = batch.join(newer, c.USER_ID, "left_anti").select(*RECOMMENDATIONS_LATEST.column_names)
    # A list may be shorter than the one it replaces: the ranks it lacks are deleted in the same commit.
    lacking = (
        shown.select(c.USER_ID, c.RANK)
        .join(mine.select(c.USER_ID).distinct(), c.USER_ID, "left_semi")
        .join(mine.select(c.USER_ID, c.RANK), [c.USER_ID, c.RANK], "left_anti")
    )
    source = mine.unionByName(lacking, allowMissingColumns=True).persist()
    try:
        source.count()
        warehouse.merge(RECOMMENDATIONS_LATEST, source, _GONE)
    finally:
        source.unpersist()
    return None


def _publish_night(context: Context, batch: DataFrame, shown: DataFrame) -> str | None:
    nights = context.warehouse.read(RECOMMENDATIONS).where(F.col(c.MODE) == "nightly")
    # A later night that was taken back (jobs/rollback.py) is on record, but nothing as new as it is shown.
    later = nights.where(F.col(c.AS_OF_TS) > F.lit(context.as_of)).agg(F.max(c.AS_OF_TS).alias("night"))
    if not shown.join(F.broadcast(later), shown[c.AS_OF_TS] >= F.col("night"), "left_semi").isEmpty():
        return "a later night is shown already; this batch is kept in recommendations only"
    newer = shown.where(F.col(c.AS_OF_TS) > F.lit(context.as_of))
    kept = batch.join(newer.select(c.USER_ID).distinct(), c.USER_ID, "left_anti")
    everyone = kept.select(*RECOMMENDATIONS_LATEST.column_names).unionByName(newer)
    context.warehouse.overwrite(
        RECOMMENDATIONS_LATEST, everyone.repartition(2, c.USER_ID).sortWithinPartitions(c.USER_ID, c.RANK)
    )
    return None
