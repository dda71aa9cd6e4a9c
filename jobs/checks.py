"""What a batch of lists must satisfy before anybody sees it."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from features.contracts import ITEM_TEMPORAL, RECOMMENDATIONS
from jobs.cli import Context
from jobs.errors import DataQualityError


def check_batch(context: Context, batch: DataFrame) -> dict[str, int]:
    """Count the batch. Raises DataQualityError, with what is wrong, when it must not be published."""
    finite = F.col(c.SCORE).isNotNull() & ~F.isnan(c.SCORE) & (F.abs(c.SCORE) < float("inf"))
    lists = batch.groupBy(c.USER_ID).agg(
        F.count("*").alias("rows"),
        F.count_distinct(c.RANK).alias("ranks"),
        F.count_distinct(c.ITEM_ID).alias("items"),
        F.max(c.RANK).alias("last"),
        F.count_if(~finite).alias("not_finite"),
        F.bool_or(c.COLD).alias("cold"),
    )
    broken = (
        (F.col("ranks") != F.col("rows")) | (F.col("last") != F.col("rows")) | (F.col("rows") > context.settings.top_k)
    )
    row = lists.agg(
        F.count("*").alias("lists"),
        F.count_if("cold").alias("cold"),
        F.count_if(broken).alias("with broken ranks"),
        F.count_if(F.col("items") != F.col("rows")).alias("with an item twice"),
        F.coalesce(F.sum("not_finite"), F.lit(0)).alias("scores that are not finite"),
    ).first()
    assert row is not None  # noqa: S101 - an aggregate without groups has one row
    found = row.asDict()
    lists_made, cold = found.pop("lists"), found.pop("cold")
    available = context.warehouse.partition(ITEM_TEMPORAL, context.as_of).where("item_available")
    found["items that may not be recommended"] = batch.join(available, c.ITEM_ID, "left_anti").count()
    wrong = [f"{n:,} {what}" for what, n in found.items() if n]
    if wrong:
        raise DataQualityError(
            f"the {context.mode} batch at {context.as_of} has {', '.join(wrong)}; nothing was published"
        )
    if context.mode == "nightly":
        _check_shrink(context, lists_made)
    return {"lists": lists_made, "cold_lists": cold}


def _check_shrink(context: Context, lists: int) -> None:
    if lists == 0:
        raise DataQualityError(
            f"the nightly batch at {context.as_of} is empty; nothing was published; run build_features"
        )
    if not context.warehouse.exists(RECOMMENDATIONS):
        return
    last = (
        context.warehouse.read(RECOMMENDATIONS)
        .where((F.col(c.MODE) == "nightly") & (F.col(c.AS_OF_TS) < F.lit(context.as_of)) & (F.col(c.RANK) == 1))
        .groupBy(c.AS_OF_TS)
        .count()
        .orderBy(F.desc(c.AS_OF_TS))
        .select("count")
        .first()
    )
    limit = context.settings.scoring.max_shrink
    if last and lists < last["count"] * (1 - limit):
        raise DataQualityError(
            f"the nightly batch at {context.as_of} has {lists:,} lists, the night before {last['count']:,}: more than "
            f"scoring.max_shrink = {limit:g} fewer; nothing was published; check table events"
        )
