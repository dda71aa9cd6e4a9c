"""Lists made at as_of, and at the nights before it, against what users then did, beside the simple baselines -> ``evaluations``.

The truth lies in ``[as_of, as_of + horizon)``, so this runs once that window has passed. Judged are users with a visible
past and at least one true item; the whole catalogue counts, no negatives are sampled. Windows before as_of follow each other
by a horizon each, so no event is true in two of them.

Scores of the model: *as of* is the night's list, made for the whole horizon; *as served* is the newest list on record at
the user's first visit in the window, so it shows what refreshed lists gain; both are judged *hour by hour* too, where later lists
were made, by what was on show when an hour's visit began and what was taken in it; *knowing the visit* is what the night's model
would have shown had it known when the user comes (``jobs/lists/visits.py``), where ``evaluation.visit_parts`` asks for it.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

from pyspark.sql import functions as F

from conf import columns as c
from features.contracts import EVALUATIONS, EVENTS, RECOMMENDATIONS
from features.windows import from_micros
from jobs import cli
from jobs.cli import Context
from jobs.errors import DataQualityError
from jobs.judging.judge import KNOWING, Judged, judge
from jobs.judging.score_card import show
from jobs.judging.sums import ALL, KAIROS, SERVED, Sums, added
from jobs.lists.visits import visit_known
from jobs.progress import console, step
from jobs.store.run_log import finished, recorded
from jobs.store.table_io import Warehouse, schema

#: Metrics where more is better, so that one recommender can lead another.
_ACCURACY = ("ndcg", "recall", "mrr")


def evaluate(context: Context) -> None:
    """Judge the nightly lists at as_of and those of the windows before it, and write one row a metric."""
    warehouse, settings = context.warehouse, context.settings
    wanted = [context.as_of - k * settings.horizon for k in range(settings.evaluation.windows)]
    if context.dry_run:
        console.print(f"evaluate would judge the nightly lists of {_named(wanted)}, each over {settings.horizon}")
        return
    with warehouse.lease([EVALUATIONS]), recorded(warehouse, "evaluate", None, context.as_of) as run:
        versions = listed_nights(warehouse, min(wanted))
        _need(context, versions)
        windows = [night for night in wanted if night in versions]
        missing = [night for night in wanted if night not in versions]
        judged: dict[datetime, Judged] = {}
        for night in windows:
            with step(context.spark, f"judge {night:%Y-%m-%d %H:%M}"):
                knowing = partial(visit_known, context, night, versions[night]) if settings.evaluation.visit_parts else None
                judged[night] = judge(warehouse, settings, night, knowing)
        judged = {night: one for night, one in judged.items() if one.users}
        if not judged:
            raise DataQualityError(f"nobody with a past did anything to judge within {settings.horizon} of {_named(windows)}")
        together = added(part for one in judged.values() for part in one.sums.items())
        rows = [row for night, one in judged.items() for row in _rows(one.sums, one.whole, one.users, night, 1, versions[night])]
        if len(judged) > 1:
            rows += _rows(together, {}, 0, max(judged), len(judged), versions[max(judged)])
        horizon = int(settings.horizon.total_seconds())
        frame = context.spark.createDataFrame([(run.run_id, row[0], horizon, *row[1:]) for row in rows], schema(EVALUATIONS))
        warehouse.append(EVALUATIONS, frame.coalesce(1))
        run.model_version = versions[max(judged)]
        run.counts |= {"windows": len(judged), "users_judged": sum(one.users for one in judged.values()), "metrics": len(rows)}
        if missing:
            run.message = f"no nightly lists on record at {_named(missing)}; jobs/nightly.py makes them with that --as-of"
    show(judged, together, settings.horizon)


def listed_nights(warehouse: Warehouse, since: datetime) -> dict[datetime, str]:
    """The moments, from ``since`` on, for which nightly lists are on record, and the version of the model that made them."""
    if not warehouse.exists(RECOMMENDATIONS):
        return {}
    lists = warehouse.read(RECOMMENDATIONS).where((F.col(c.AS_OF_TS) >= F.lit(since)) & (F.col(c.MODE) == "nightly"))
    found = lists.groupBy(F.unix_micros(c.AS_OF_TS).alias("us")).agg(F.max(c.MODEL_VERSION).alias("version")).collect()
    return {from_micros(row["us"]): row["version"] for row in found}


def _rows(
    sums: Sums, whole: dict[tuple[str, str], float], users: int, as_of: datetime, windows: int, version: str
) -> list[tuple[Any, ...]]:
    """Rows of ``evaluations``, without run and horizon."""

    def named(who: str, segment: str, metric: str) -> tuple[Any, ...]:
        return as_of, windows, who, version if who in (KAIROS, SERVED, KNOWING) else None, segment, metric

    rows = []
    for (who, segment, metric), one in sorted(sums.items()):
        if not one.users:
            continue
        compared = who != KAIROS and metric.startswith(_ACCURACY)
        lead = sums[KAIROS, segment, metric].less(one) if compared else None
        rows.append((
            *named(who, segment, metric), one.mean, one.users, *(one.interval() or (None, None)),
            *((lead.value, *lead.interval, lead.p) if lead else (None,) * 4),
        ))  # fmt: skip
    rows += [(*named(who, ALL, metric), value, users, *(None,) * 6) for (who, metric), value in sorted(whole.items())]
    return rows


def _need(context: Context, known: dict[datetime, str]) -> None:
    if context.as_of not in known:
        raise DataQualityError(
            f"no nightly lists at {context.as_of:%Y-%m-%dT%H:%M:%SZ} in table recommendations; run jobs/nightly.py with that --as-of"
        )
    # Closed by what was ingested up to its end, or by an event after it.
    end = context.as_of + context.settings.horizon
    ingested = finished(context.warehouse, "ingest")
    if ingested is not None and not ingested.where(F.col(c.AS_OF_TS) >= F.lit(end)).isEmpty():
        return
    if context.warehouse.read(EVENTS).where(F.col(c.EVENT_TS) >= F.lit(end)).isEmpty():
        raise DataQualityError(
            f"the window up to {end:%Y-%m-%dT%H:%M:%SZ} has not closed: table events has nothing at or after its end; "
            "ingest newer events, or evaluate an earlier --as-of"
        )


def _named(moments: list[datetime]) -> str:
    return ", ".join(f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in moments)


if __name__ == "__main__":
    cli.main("evaluate", evaluate, "Judge the lists made at --as-of and at the nights before it, beside the baselines.")
