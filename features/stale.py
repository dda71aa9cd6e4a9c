"""Whose shown list has gone stale, though the user did nothing: what is in it is gone, or the shop has turned to other things."""

from __future__ import annotations

from datetime import datetime, timedelta

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from conf import columns as c
from features.item_age import known_items
from features.served import shown_at
from features.windows import SECOND_US, Moments, to_micros, visible

#: Popularity by which an item is trending: of the half-lives that are kept, the shortest that sees a whole day.
_HALF_LIFE = "1d"
_HEAT, _PLACE = "heat", "place"


def shown_before(recommendations: DataFrame, latest: DataFrame, as_of: datetime) -> DataFrame:
    """as_of_ts, user_id, item_id of the lists that were on show when an hour at as_of began.

    Most are in ``recommendations_latest`` still. Where that hour has been run before, its own lists are there, and the ones it found
    are the newest before it on record: so that a second run asks the same users. After a rollback a user may have one of each.
    """
    names = [c.AS_OF_TS, c.USER_ID, c.ITEM_ID]
    earlier = F.col(c.AS_OF_TS) < F.timestamp_micros(F.lit(to_micros(as_of)))
    on_record = shown_at(recommendations.where(earlier), as_of)
    return latest.where(earlier).select(*names).unionByName(on_record.select(*names)).distinct()


def holding_unavailable(shown: DataFrame, items: DataFrame, as_of: datetime) -> DataFrame:
    """user_id of the lists (``shown_before``) with an item that the catalogue gives no more: expired, sold out or hidden."""
    return shown.join(_gone(items, as_of), on=c.ITEM_ID, how="left_semi").select(c.USER_ID).distinct()


def trending(temporal: DataFrame, most: int) -> DataFrame:
    """as_of_ts, item_id: the ``most`` items that trended at each moment of ``item_temporal``."""
    return _top(temporal.where("item_available").withColumn(_HEAT, F.col(c.item_decayed(_HALF_LIFE))), most)


def trending_since(temporal: DataFrame, new: DataFrame, items: DataFrame, night: datetime, as_of: datetime, most: int) -> DataFrame:
    """The same at an hour, whose ``item_temporal`` is not written yet: the night's partition, aged, and the ``new`` events."""
    half_life_us = c.ITEM_HALF_LIVES[_HALF_LIFE] * SECOND_US
    aged = 0.5 ** ((as_of - night) / timedelta(microseconds=half_life_us))
    old = temporal.select(c.ITEM_ID, (F.col(c.item_decayed(_HALF_LIFE)) * aged).alias(_HEAT))
    ago = F.lit(to_micros(as_of)) - F.unix_micros(c.EVENT_TS)
    fresh = visible(new, as_of).select(c.ITEM_ID, F.pow(F.lit(0.5), ago / half_life_us).alias(_HEAT))
    heat = old.unionByName(fresh).groupBy(c.ITEM_ID).agg(F.sum(_HEAT).alias(_HEAT))
    able = heat.join(_gone(items, as_of), on=c.ITEM_ID, how="left_anti").withColumn(c.AS_OF_TS, F.timestamp_micros(F.lit(to_micros(as_of))))
    return _top(able, most)


def overtaken(shown: DataFrame, then: DataFrame, now: DataFrame, most: int, share: float) -> DataFrame:
    """user_id of the lists (``shown_before``) made when other things trended: more than this share of ``now`` is not in ``then``.

    ``then`` are ``trending`` at the moments of the lists; a moment that is kept no more counts as wholly changed.
    """
    asked = shown.select(c.AS_OF_TS).distinct()
    kept = then.join(now.select(c.ITEM_ID), on=c.ITEM_ID, how="left_semi").groupBy(c.AS_OF_TS).agg(F.count("*").alias("kept"))
    size = now.agg(F.least(F.count("*"), F.lit(most)).alias("size"))
    changed = 1 - F.coalesce("kept", F.lit(0)) / F.greatest("size", F.lit(1))
    old = asked.join(kept, on=c.AS_OF_TS, how="left").crossJoin(size).where((changed > share) & (F.col("size") > 0))
    return shown.join(old.select(c.AS_OF_TS), on=c.AS_OF_TS, how="left_semi").select(c.USER_ID).distinct()


def _gone(items: DataFrame, as_of: datetime) -> DataFrame:
    return known_items(items, Moments.of([as_of])).where(~F.col("item_available")).select(c.ITEM_ID)


def _top(rows: DataFrame, most: int) -> DataFrame:
    # Rounded, because the same heat may be a sum in another order; ties go by the item.
    hottest = Window.partitionBy(c.AS_OF_TS).orderBy(F.desc(F.round(_HEAT, 9)), c.ITEM_ID)
    top = rows.where(F.col(_HEAT) > 0).withColumn(_PLACE, F.row_number().over(hottest)).where(F.col(_PLACE) <= most)
    return top.select(c.AS_OF_TS, c.ITEM_ID)
