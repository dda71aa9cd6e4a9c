"""A checked batch -> ``recommendations_latest``, in one commit: a reader sees each list whole, old or new."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from features.contracts import RECOMMENDATIONS, RECOMMENDATIONS_LATEST
from jobs.cli import Context


def publish(context: Context, batch: DataFrame) -> str | None:
    """Show the batch, except to users whose shown list is newer. Returns a note, if there is one to make.

    A night is the whole table, but for those newer lists; an hour leaves the lists of all others as they are. Users of an hour
    lie in every file, so that all files are written anew either way, and in order that takes 70 % of a MERGE's time (model/LOG.md).
    """
    warehouse = context.warehouse
    if not warehouse.exists(RECOMMENDATIONS_LATEST):
        warehouse.overwrite(RECOMMENDATIONS_LATEST, batch)
        return None
    shown = warehouse.read(RECOMMENDATIONS_LATEST)
    if context.mode == "nightly" and _later_shown(context, shown):
        return "a later night is shown already; this batch is kept in recommendations only"
    newer = shown.where(F.col(c.AS_OF_TS) > F.lit(context.as_of))
    mine = batch.join(newer.select(c.USER_ID).distinct(), c.USER_ID, "left_anti").select(*RECOMMENDATIONS_LATEST.column_names)
    others = newer if context.mode == "nightly" else shown.join(mine.select(c.USER_ID).distinct(), c.USER_ID, "left_anti")
    everyone = mine.unionByName(others.select(*RECOMMENDATIONS_LATEST.column_names))
    warehouse.overwrite(RECOMMENDATIONS_LATEST, everyone.repartition(2, c.USER_ID).sortWithinPartitions(c.USER_ID, c.RANK))
    return None


def _later_shown(context: Context, shown: DataFrame) -> bool:
    """Whether lists as new as a later night are shown. A night that was taken back (jobs/rollback.py) is on record only."""
    nights = context.warehouse.read(RECOMMENDATIONS).where(F.col(c.MODE) == "nightly")
    later = nights.where(F.col(c.AS_OF_TS) > F.lit(context.as_of)).agg(F.max(c.AS_OF_TS).alias("night"))
    return not shown.join(F.broadcast(later), shown[c.AS_OF_TS] >= F.col("night"), "left_semi").isEmpty()
