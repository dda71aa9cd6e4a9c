"""What users did after as_of, as evaluation needs it."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from conf.settings import Settings
from features.windows import visible


def judged_truth(events: DataFrame, as_of: datetime, settings: Settings) -> DataFrame:
    """One row a judged user: user_id, truth (distinct items in [as_of, as_of + horizon)), seen (items before as_of).

    Judged are users with a visible past and a truth that is not empty. Where items do not repeat, seen items are no truth
    and may not be recommended; where they do, ``seen`` is empty. Items never seen before as_of stay in the truth.
    """
    past = visible(events, as_of).select(c.USER_ID, c.ITEM_ID).distinct()
    in_window = (F.col(c.EVENT_TS) >= F.lit(as_of)) & (F.col(c.EVENT_TS) < F.lit(as_of + settings.horizon))
    after = events.where(in_window).select(c.USER_ID, c.ITEM_ID).distinct()
    if settings.repeat_consumption:
        after = after.join(past.select(c.USER_ID).distinct(), on=c.USER_ID, how="left_semi")
        seen = past.select(c.USER_ID).distinct().withColumn("seen", F.array().cast("array<string>"))
    else:
        after = after.join(past, on=[c.USER_ID, c.ITEM_ID], how="left_anti")
        seen = past.groupBy(c.USER_ID).agg(F.sort_array(F.collect_set(c.ITEM_ID)).alias("seen"))
    truth = after.groupBy(c.USER_ID).agg(F.sort_array(F.collect_set(c.ITEM_ID)).alias("truth"))
    return truth.join(seen, on=c.USER_ID, how="inner").select(c.USER_ID, "truth", "seen")
