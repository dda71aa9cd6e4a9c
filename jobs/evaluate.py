"""Lists made at as_of against what users then did, beside the simple baselines -> ``evaluations``.

The truth lies in ``[as_of, as_of + horizon)``, so this runs once that window has passed. Judged are users with a visible
past and at least one true item; the whole catalogue counts, no negatives are sampled.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from rich.table import Table as Grid

from conf import columns as c
from features.baselines import personal_lists, popularity_lists
from features.contracts import EVALUATIONS, EVENTS, ITEM_TEMPORAL, RECOMMENDATIONS, USER_ITEM_REPEATS
from features.truth import judged_truth
from features.windows import visible
from jobs import cli
from jobs.cli import Context
from jobs.errors import DataQualityError
from jobs.progress import console, step
from jobs.run_log import recorded
from model import metrics

KAIROS = "kairos"
DEPTH = 20


def evaluate(context: Context) -> None:
    """Judge the nightly lists at as_of and write one row a metric."""
    warehouse, settings = context.warehouse, context.settings
    if context.dry_run:
        console.print(
            f"evaluate would judge the nightly lists of {context.as_of:%Y-%m-%dT%H:%MZ} over {settings.horizon}"
        )
        return
    with warehouse.lease([EVALUATIONS]), recorded(warehouse, "evaluate", None, context.as_of) as run:
        events = warehouse.read(EVENTS)
        lists = warehouse.partition(RECOMMENDATIONS, context.as_of).where(F.col(c.MODE) == "nightly")
        _need(context, events, lists)
        with step(context.spark, "judge"):
            truth = judged_truth(events, context.as_of, settings).persist()
            every = _lists(context, lists, truth).repartition(2, c.USER_ID).persist()
            rows = _measure(every, truth, visible(events, context.as_of))
        version = lists.select(c.MODEL_VERSION).first()[0]  # type: ignore[index]
        run.model_version = version
        found = {(row["recommender"], row["metric"]): (row["metric_value"], row["users"]) for row in rows.collect()}
        run.counts |= {"users_judged": next(iter(found.values()))[1], "metrics": len(found)}
        out = [
            (run.run_id, context.as_of, int(settings.horizon.total_seconds()), who, version if who == KAIROS else None,
             "all", metric, value, users)
            for (who, metric), (value, users) in sorted(found.items())
        ]  # fmt: skip
        warehouse.append(
            EVALUATIONS, context.spark.createDataFrame(out, EVALUATIONS.ddl().replace(" NOT NULL", "")).coalesce(1)
        )
        every.unpersist()
        truth.unpersist()
    _show(context, found)


def _lists(context: Context, lists: DataFrame, truth: DataFrame) -> DataFrame:
    """(recommender, user_id, truth, items best first) of the model and of every baseline, for the judged users."""
    own = (
        lists.where(F.col(c.RANK) <= DEPTH)
        .join(truth.select(c.USER_ID), on=c.USER_ID, how="left_semi")
        .groupBy(c.USER_ID)
        .agg(F.sort_array(F.collect_list(F.struct(c.RANK, c.ITEM_ID)))[c.ITEM_ID].alias("items"))
    )
    made = {KAIROS: own}
    settings = context.settings
    temporal = context.warehouse.partition(ITEM_TEMPORAL, context.as_of).persist()
    for half_life in settings.evaluation.popularity_half_lives:
        made[f"popularity {half_life}"] = popularity_lists(temporal, truth, half_life, DEPTH)
    if settings.repeat_consumption:
        repeats = context.warehouse.partition(USER_ITEM_REPEATS, context.as_of).persist()
        tie = settings.evaluation.popularity_half_lives[-1]
        for half_life in settings.evaluation.personal_half_lives:
            made[f"personal frequency {half_life}"] = personal_lists(repeats, temporal, truth, half_life, tie, DEPTH)
    named = [frame.select(F.lit(name).alias("recommender"), c.USER_ID, "items") for name, frame in made.items()]
    # Every judged user has a row for every recommender: one without a list is judged as an empty list.
    judged = truth.select(c.USER_ID, "truth", F.explode(F.array(*[F.lit(name) for name in made])).alias("recommender"))
    return judged.join(reduce(DataFrame.unionByName, named), on=["recommender", c.USER_ID], how="left")


def _measure(every: DataFrame, truth: DataFrame, past: DataFrame) -> DataFrame:
    """(recommender, metric, metric_value, users): means over the judged users; one without a list counts as 0."""
    each = every.select("recommender", "items", "truth").mapInArrow(
        _each_user, "recommender STRING, metric STRING, v DOUBLE"
    )
    means = each.groupBy("recommender", "metric").agg(F.avg("v").alias("metric_value"), F.count("*").alias("users"))
    catalogue = past.select(F.count_distinct(c.ITEM_ID).alias("n"))
    shown = every.select("recommender", F.explode(F.slice("items", 1, 10)).alias(c.ITEM_ID))
    coverage = (
        shown.groupBy("recommender")
        .agg(F.count_distinct(c.ITEM_ID).alias("distinct"))
        .crossJoin(catalogue)
        .crossJoin(truth.select(F.count("*").alias("users")))
        .select(
            "recommender",
            F.lit("coverage@10").alias("metric"),
            (F.col("distinct") / F.col("n")).alias("metric_value"),
            "users",
        )
    )
    return means.unionByName(coverage)


def _each_user(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Each judged user's metrics, as rows."""
    for batch in batches:
        table = pa.Table.from_batches([batch])
        lists = [items or [] for items in table["items"].to_pylist()]
        hits = metrics.find_hits(lists, table["truth"].to_pylist(), DEPTH)
        values = {
            "ndcg@10": metrics.ndcg(hits, 10),
            "recall@10": metrics.recall(hits, 10),
            "recall@20": metrics.recall(hits, 20),
            "mrr@10": metrics.mrr(hits, 10),
        }
        for name, value in values.items():
            columns = [
                table["recommender"].combine_chunks(),
                pa.array([name] * len(lists)),
                pa.array(value, pa.float64()),
            ]
            yield pa.RecordBatch.from_arrays(columns, names=["recommender", "metric", "v"])


def _show(context: Context, found: dict[tuple[str, str], tuple[float, int]]) -> None:
    """Print the recommenders beside each other, best NDCG first."""
    names = ("ndcg@10", "recall@10", "recall@20", "mrr@10", "coverage@10")
    users = next(iter(found.values()))[1]
    title = f"{users:,} users judged over {context.settings.horizon.days or context.settings.horizon} days from {context.as_of:%Y-%m-%d}"
    grid = Grid("recommender", *names, title=title, title_justify="left")
    for who in sorted({who for who, _ in found}, key=lambda who: -found[who, "ndcg@10"][0]):
        grid.add_row(who, *[f"{found[who, name][0]:.4f}" for name in names], style="bold" if who == KAIROS else None)
    console.print(grid)


def _need(context: Context, events: DataFrame, lists: DataFrame) -> None:
    if lists.isEmpty():
        raise DataQualityError(
            f"no nightly lists at {context.as_of:%Y-%m-%dT%H:%M:%SZ} in table recommendations; run jobs/nightly.py with that --as-of"
        )
    end = context.as_of + context.settings.horizon
    if events.where(F.col(c.EVENT_TS) >= F.lit(end)).isEmpty():
        raise DataQualityError(
            f"the window up to {end:%Y-%m-%dT%H:%M:%SZ} has not closed: table events has nothing at or after its end; "
            "ingest newer events, or evaluate an earlier --as-of"
        )


if __name__ == "__main__":
    cli.main("evaluate", evaluate, "Judge the lists made at --as-of, beside the baselines.")
