"""What a batch of lists must satisfy before anybody sees it."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from features.contracts import ITEM_TEMPORAL, RECOMMENDATIONS, RECOMMENDATIONS_LATEST
from features.served import shown_at
from jobs.cli import Context
from jobs.errors import DataQualityError


def check_batch(context: Context, batch: DataFrame, asked: int) -> dict[str, int]:
    """Count the batch that was made for so many users. Raises DataQualityError, with what is wrong, when it must not be published."""
    counts, wrong = _whole(context, batch)
    unserved = asked - counts["lists"]
    if unserved > asked * context.settings.scoring.max_unserved or not counts["lists"]:
        limit = f"more than scoring.max_unserved = {context.settings.scoring.max_unserved:g} of them"
        wrong.append(f"no list for {unserved:,} of the {asked:,} users ({limit})")
    if context.mode == "nightly" and counts["lists"]:
        wrong += _drift(context, batch, counts["lists"])
    if wrong:
        raise DataQualityError(
            f"the {context.mode} batch at {context.as_of:%Y-%m-%dT%H:%M:%SZ} has {', '.join(wrong)}; nothing was published; "
            "what was shown is shown still; look at the features and the model, or raise the limit where one is named"
        )
    return counts


def _whole(context: Context, batch: DataFrame) -> tuple[dict[str, int], list[str]]:
    """Counts, and what is wrong with lists taken by themselves."""
    finite = F.col(c.SCORE).isNotNull() & ~F.isnan(c.SCORE) & (F.abs(c.SCORE) < float("inf"))
    lists = batch.groupBy(c.USER_ID).agg(
        F.count("*").alias("rows"),
        F.count_distinct(c.RANK).alias("ranks"),
        F.count_distinct(c.ITEM_ID).alias("items"),
        F.min(c.RANK).alias("first"),
        F.max(c.RANK).alias("last"),
        F.count_if(~finite).alias("not_finite"),
        F.bool_or(c.COLD).alias("cold"),
    )
    most = context.settings.top_k
    broken = (F.col("ranks") != F.col("rows")) | (F.col("first") != 1) | (F.col("last") != F.col("rows")) | (F.col("rows") > most)
    row = lists.agg(
        F.count("*").alias("lists"),
        F.count_if("cold").alias("cold_lists"),
        F.coalesce(F.sum("rows"), F.lit(0)).alias("rows"),
        F.count_if(broken).alias(f"lists whose ranks are not 1 to at most {most}, each once"),
        F.count_if(F.col("items") != F.col("rows")).alias("lists with an item twice"),
        F.coalesce(F.sum("not_finite"), F.lit(0)).alias("scores that are not finite"),
    ).first()
    assert row is not None  # noqa: S101 - an aggregate without groups has one row
    found = row.asDict()
    counts = {name: int(found.pop(name)) for name in ("lists", "cold_lists", "rows")}
    available = context.warehouse.partition(ITEM_TEMPORAL, context.as_of).where("item_available")
    found["items that may not be recommended"] = batch.join(available, c.ITEM_ID, "left_anti").count()
    return counts, [f"{n:,} {what}" for what, n in found.items() if n]


def _drift(context: Context, batch: DataFrame, lists: int) -> list[str]:
    """What is wrong with a night beside what is shown, or, when it is run again, beside what was shown before it."""
    shown = _shown(context)
    if shown is None:
        return []
    limits, out = context.settings.scoring, []
    before = shown.agg(F.count_distinct(c.USER_ID).alias("lists"), F.count_distinct(c.ITEM_ID).alias("items")).first()
    items = batch.select(c.ITEM_ID).distinct().count()
    if lists < before["lists"] * (1 - limits.max_shrink):  # type: ignore[index]
        out.append(f"{lists:,} lists, {before['lists']:,} are shown (scoring.max_shrink = {limits.max_shrink:g})")  # type: ignore[index]
    if items < before["items"] * (1 - limits.max_coverage_shrink):  # type: ignore[index]
        told = f"{items:,} different items, {before['items']:,} are shown"  # type: ignore[index]
        out.append(f"{told} (scoring.max_coverage_shrink = {limits.max_coverage_shrink:g})")
    if limits.max_turnover is not None:
        both = batch.join(shown.select(c.USER_ID).distinct(), c.USER_ID, "left_semi")
        new = both.join(shown, [c.USER_ID, c.ITEM_ID], "left_anti").count() / max(both.count(), 1)
        if new > limits.max_turnover:
            out.append(f"{new:.0%} places with an item that its user is not shown now (scoring.max_turnover = {limits.max_turnover:g})")
    return out


def _shown(context: Context) -> DataFrame | None:
    """user_id, item_id of the lists on show before as_of; None where there are none."""
    warehouse = context.warehouse
    if not (warehouse.exists(RECOMMENDATIONS) and warehouse.exists(RECOMMENDATIONS_LATEST)):
        return None
    earlier = F.col(c.AS_OF_TS) < F.lit(context.as_of)
    # The table first, and not the record: after a rollback, lists that were taken back are no measure.
    for rows in (
        warehouse.read(RECOMMENDATIONS_LATEST).where(earlier),
        shown_at(warehouse.read(RECOMMENDATIONS).where(earlier), context.as_of),
    ):
        if not rows.isEmpty():
            return rows.select(c.USER_ID, c.ITEM_ID)
    return None
