"""The lists that a user of this system could have had without it: what is popular now, what this person keeps taking.

Sources: exponentially decayed popularity and personal frequency, as in "Hu et al., Modeling personalized item frequency
information for next-basket recommendation" (SIGIR 2020) without its nearest neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf import columns as c


def popularity_lists(
    item_temporal: DataFrame, judged: DataFrame, half_lives: Sequence[str], top_k: int, pool: int = 2_000
) -> DataFrame:
    """The same decayed-popularity list for everyone, without what ``seen`` forbids: user_id, a list (best first) a half-life.

    ``item_temporal`` is one as_of. A list is drawn from the ``pool`` most popular, so it can only be short for a user who
    has seen nearly all of them.
    """
    beside = judged.select(c.USER_ID, "seen")
    for half_life in half_lives:
        beside = beside.crossJoin(F.broadcast(_popular(item_temporal, half_life, pool, half_life)))
    return beside.select(c.USER_ID, *[F.slice(F.array_except(F.col(h), "seen"), 1, top_k).alias(h) for h in half_lives])


def personal_lists(
    repeats: DataFrame, item_temporal: DataFrame, judged: DataFrame, half_lives: Sequence[str], tie: str, top_k: int
) -> DataFrame:
    """What each person took most, decayed: user_id, a list (best first) a half-life.

    Ties and the rest of a list are by decayed popularity (half-life ``tie``).
    """
    known = item_temporal.where("item_available").select(c.ITEM_ID, F.col(c.item_decayed(tie)).alias("popularity"))
    decayed = [c.repeat_decayed(h) for h in half_lives]
    own = (
        repeats.select(c.USER_ID, c.ITEM_ID, *decayed)
        .join(judged.select(c.USER_ID), on=c.USER_ID, how="left_semi")
        .join(known, on=c.ITEM_ID, how="inner")
        .groupBy(c.USER_ID)
        .agg(F.collect_list(F.struct("popularity", c.ITEM_ID, *decayed)).alias("own"))
    )
    popular = F.broadcast(_popular(item_temporal, tie, 2 * top_k, "popular"))
    nothing = F.array().cast("array<string>")

    def best(half_life: str) -> Column:
        order = F.sort_array(F.transform("own", lambda x: F.struct(-x[c.repeat_decayed(half_life)], -x["popularity"], x[c.ITEM_ID].alias("item"))))
        mine = F.transform(F.slice(order, 1, top_k), lambda x: x["item"])
        return F.slice(F.array_except(F.array_union(F.coalesce(mine, nothing), "popular"), "seen"), 1, top_k)

    return (
        judged.select(c.USER_ID, "seen")
        .join(own, on=c.USER_ID, how="left")
        .crossJoin(popular)
        .select(c.USER_ID, *[best(half_life).alias(half_life) for half_life in half_lives])
    )


def _popular(item_temporal: DataFrame, half_life: str, pool: int, name: str) -> DataFrame:
    """One row: the most popular available items, best first, in the column ``name``."""
    best = (
        item_temporal.where("item_available")
        .select(F.col(c.item_decayed(half_life)).alias("decayed"), c.ITEM_ID)
        .orderBy(F.desc_nulls_last("decayed"), F.asc_nulls_last(c.ITEM_ID))
        .limit(pool)
    )
    by_rank = F.sort_array(F.collect_list(F.struct((-F.col("decayed")).alias("order"), c.ITEM_ID)))
    return best.agg(F.transform(by_rank, lambda x: x[c.ITEM_ID]).alias(name))
