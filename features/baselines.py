"""The lists that a user of this system could have had without it: what is popular now, what this person keeps taking.

Sources: exponentially decayed popularity and personal frequency, as in "Hu et al., Modeling personalized item frequency
information for next-basket recommendation" (SIGIR 2020) without its nearest neighbours.
"""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from conf import columns as c


def popularity_lists(
    item_temporal: DataFrame, judged: DataFrame, half_life: str, top_k: int, pool: int = 2_000
) -> DataFrame:
    """The same decayed-popularity list for everyone, without what ``seen`` forbids: user_id, items (best first).

    ``item_temporal`` is one as_of. The list is drawn from the ``pool`` most popular, so it can only be short for a user who
    has seen nearly all of them.
    """
    return judged.crossJoin(F.broadcast(_popular(item_temporal, half_life, pool))).select(
        c.USER_ID, F.slice(F.array_except("popular", "seen"), 1, top_k).alias("items")
    )


def personal_lists(
    repeats: DataFrame, item_temporal: DataFrame, judged: DataFrame, half_life: str, tie: str, top_k: int
) -> DataFrame:
    """What each person took most, decayed; ties and the rest by decayed popularity (half-life ``tie``)."""
    known = item_temporal.where("item_available").select(c.ITEM_ID, F.col(c.item_decayed(tie)).alias("popularity"))
    order = Window.partitionBy(c.USER_ID).orderBy(
        F.desc_nulls_last(c.repeat_decayed(half_life)), F.desc_nulls_last("popularity"), F.asc_nulls_last(c.ITEM_ID)
    )
    own = (
        repeats.join(judged.select(c.USER_ID), on=c.USER_ID, how="left_semi")
        .join(known, on=c.ITEM_ID, how="inner")
        .select(c.USER_ID, c.ITEM_ID, F.row_number().over(order).alias("place"))
        .where(F.col("place") <= top_k)
        .groupBy(c.USER_ID)
        .agg(
            F.transform(F.sort_array(F.collect_list(F.struct("place", c.ITEM_ID))), lambda x: x[c.ITEM_ID]).alias("own")
        )
    )
    popular = F.broadcast(_popular(item_temporal, tie, 2 * top_k))
    nothing = F.array().cast("array<string>")
    allowed = F.array_except(F.array_union(F.coalesce("own", nothing), "popular"), "seen")
    return (
        judged.join(own, on=c.USER_ID, how="left")
        .crossJoin(popular)
        .select(c.USER_ID, F.slice(allowed, 1, top_k).alias("items"))
    )


def _popular(item_temporal: DataFrame, half_life: str, pool: int) -> DataFrame:
    best = (
        item_temporal.where("item_available")
        .select(F.col(c.item_decayed(half_life)).alias("decayed"), c.ITEM_ID)
        .orderBy(F.desc_nulls_last("decayed"), F.asc_nulls_last(c.ITEM_ID))
        .limit(pool)
    )
    by_rank = F.sort_array(F.collect_list(F.struct((-F.col("decayed")).alias("order"), c.ITEM_ID)))
    return best.agg(F.transform(by_rank, lambda x: x[c.ITEM_ID]).alias("popular"))
