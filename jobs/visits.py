"""Lists of a model that is told when each judged user comes, and nothing of what happened until then.

Nobody could have made them. Beside the night's lists, which speak for the whole horizon, they say what it costs not to know the
moment of the visit. They are made from the night's features, with the time of the visit, to a part of the horizon, in place of
as_of wherever the model looks at the clock: ages of events, gaps that fall due, cycles of the day and the week.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from features.contracts import EVENTS, USER_ITEM_REPEATS, USER_PROFILES, USER_SEQUENCES
from features.truth import judged_truth
from features.user_inputs import user_inputs
from features.windows import to_micros
from jobs.cli import Context
from jobs.models import prepared, usable
from jobs.score import scored

_PART = "part"


def visit_known(context: Context, as_of: datetime, version: str) -> DataFrame | None:
    """user_id, items (best first) of the users judged at a night; None where its model may not be used there any more.

    One scoring for each of ``evaluation.visit_parts`` of the horizon, so the rows are kept in memory: unpersist them.
    """
    night, settings = replace(context, as_of=as_of, mode="nightly"), context.settings
    model = usable(settings, as_of)
    if model.version != version:
        return None
    warehouse, part = context.warehouse, settings.horizon / settings.evaluation.visit_parts
    visits = judged_truth(warehouse.read(EVENTS), as_of, settings).select(
        c.USER_ID, F.floor((F.unix_micros("visit_ts") - to_micros(as_of)) / (part.total_seconds() * 1e6)).alias(_PART)
    )
    tables = (USER_SEQUENCES, USER_PROFILES, USER_ITEM_REPEATS)
    users = user_inputs(*(warehouse.partition(table, as_of) for table in tables)).join(visits, on=c.USER_ID).persist()
    lists = []
    for k in range(settings.evaluation.visit_parts):
        with prepared(night, model, asked=as_of + (k + 0.5) * part) as catalogue:
            rows = scored(users.where(F.col(_PART) == k).drop(_PART), catalogue).groupBy(c.USER_ID)
            lists.append(rows.agg(F.sort_array(F.collect_list(F.struct(c.RANK, c.ITEM_ID)))[c.ITEM_ID].alias("items")).persist())
            lists[-1].count()  # while the workers have the catalogue
    users.unpersist()
    return reduce(DataFrame.unionByName, lists)
