"""The users whose lists an hour makes anew though they did nothing: see features/stale.py for when a list is stale."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import DataFrame

from conf import columns as c
from features.contracts import ITEM_TEMPORAL, RECOMMENDATIONS, RECOMMENDATIONS_LATEST
from features.stale import holding_unavailable, overtaken, shown_before, trending, trending_since
from features.user_inputs import EVERYONE_ELSE
from jobs.cli import Context
from jobs.store.nights import SinceNight


def stale_users(context: Context, hour: SinceNight, items: DataFrame) -> DataFrame:
    """user_id, each once, of those with a visible history whose shown list is stale at as_of."""
    warehouse, as_of = context.warehouse, context.as_of
    if not (warehouse.exists(RECOMMENDATIONS) and warehouse.exists(RECOMMENDATIONS_LATEST)):
        return hour.new.select(c.USER_ID).limit(0)
    shown = shown_before(warehouse.read(RECOMMENDATIONS), warehouse.read(RECOMMENDATIONS_LATEST), as_of)
    shown = shown.where(shown[c.USER_ID] != EVERYONE_ELSE)
    found = holding_unavailable(shown, items, as_of)
    if context.settings.trending_change < 1:
        found = found.unionByName(_overtaken(context, hour, items, shown, context.settings.trending_change))
    return found.distinct()


def _overtaken(context: Context, hour: SinceNight, items: DataFrame, shown: DataFrame, share: float) -> DataFrame:
    temporal, most, as_of = context.warehouse.read(ITEM_TEMPORAL), context.settings.top_k, context.as_of
    night: datetime = hour.night
    now = trending_since(context.warehouse.partition(ITEM_TEMPORAL, night), hour.new, items, night, as_of, most)
    moments = shown.select(c.AS_OF_TS).distinct()
    then = trending(temporal.join(moments, on=c.AS_OF_TS, how="left_semi"), most)
    return overtaken(shown, then, now, most, share)
