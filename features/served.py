"""The lists on record that were made for judged users: the night's, and what each was really shown at the visit."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from conf import columns as c


def listed(rows: DataFrame, *key: str) -> DataFrame:
    """One row a key: items, best first, of rows with rank and item_id."""
    return rows.groupBy(*key).agg(F.sort_array(F.collect_list(F.struct(c.RANK, c.ITEM_ID)))[c.ITEM_ID].alias("items"))


def shown_at(recommendations: DataFrame, as_of: datetime) -> DataFrame:
    """The rows of ``recommendations`` that were on show at as_of: each user's newest list since the newest night, that night's included.

    Whom that night does not know is shown the list of ``*``, as in ``recommendations_latest``. An hour at the moment of a night
    is shown in its place.
    """
    made = recommendations.where(F.col(c.AS_OF_TS) <= F.lit(as_of))
    night = made.where(F.col(c.MODE) == "nightly").agg(F.max(c.AS_OF_TS).alias("night"))
    lately = made.join(F.broadcast(night), F.col(c.AS_OF_TS) >= F.col("night"), "left_semi")
    newest = Window.partitionBy(c.USER_ID).orderBy(F.desc(c.AS_OF_TS), c.MODE)
    return lately.withColumn("age", F.rank().over(newest)).where("age = 1").drop("age")


def lists_on_record(recommendations: DataFrame, visits: DataFrame, as_of: datetime, depth: int) -> DataFrame:
    """user_id, visit_ts (as in ``visits``), nightly (the list made at as_of), served (the newest list made at or before the
    visit), newer (they differ in age).

    Lists are items, best first, ``depth`` at most. A list speaks for its own as_of_ts and knows nothing later, so ``served``
    keeps the time law at the visit. An hour refreshes those who have acted and those whose list is stale.
    """
    known = recommendations.where((F.col(c.AS_OF_TS) >= F.lit(as_of)) & (F.col(c.RANK) <= depth))
    asked = known.join(visits.groupBy(c.USER_ID).agg(F.max("visit_ts").alias("last")), on=c.USER_ID)
    lists = listed(asked.where(F.col(c.AS_OF_TS) <= F.col("last")), c.USER_ID, c.AS_OF_TS, c.MODE)
    shown = lists.join(visits.select(c.USER_ID, "visit_ts"), on=c.USER_ID).where(F.col(c.AS_OF_TS) <= F.col("visit_ts"))
    tonight = (F.col(c.AS_OF_TS) == F.lit(as_of)) & (F.col(c.MODE) == "nightly")
    return shown.groupBy(c.USER_ID, "visit_ts").agg(
        F.first(F.when(tonight, F.col("items")), ignorenulls=True).alias("nightly"),
        # An hour at the moment of a night is shown in its place.
        F.max_by("items", F.struct(c.AS_OF_TS, F.col(c.MODE) == "hourly")).alias("served"),
        (F.max(c.AS_OF_TS) > F.lit(as_of)).alias("newer"),
    )
