"""Lists made at as_of against what users then did, beside the simple baselines -> ``evaluations``.

The truth lies in ``[as_of, as_of + horizon)``, so this runs once that window has passed. Judged are users with a visible
past and at least one true item; the whole catalogue counts, no negatives are sampled.
"""

from __future__ import annotations

from features.windows import visible
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from features.contracts import EVALUATIONS, EVENTS, RECOMMENDATIONS
from features.truth import judged_truth
from jobs.baseline_lists import baseline_lists
from jobs.cli import Context
from jobs.errors import DataQualityError
from jobs.progress import console, step
from jobs.run_log import recorded

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
            shown = lists.where(F.col(c.RANK) <= DEPTH).select(
                F.lit(KAIROS).alias("recommender"), c.USER_ID, c.RANK, c.ITEM_ID
            )
            every = shown.unionByName(baseline_lists(warehouse, truth, context.as_of, settings, DEPTH))
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
        truth.unpersist()
    _show(context, found)


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
