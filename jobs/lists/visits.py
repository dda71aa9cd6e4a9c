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
from features.served import listed
from features.windows import to_micros
from jobs.cli import Context
from jobs.lists.models import prepared, usable
from jobs.progress import console
from jobs.score import known_users, scored

_PART = "part"


def visit_known(context: Context, as_of: datetime, version: str, truth: DataFrame) -> DataFrame | None:
    """user_id, items (best first) of the users of ``truth`` (``judged_truth`` at a night), whose lists are by this model version.

    One scoring for each of ``evaluation.visit_parts`` of the horizon. None, which is said, where that version may not be used there
    any more.
    """
    night, settings = replace(context, as_of=as_of, mode="nightly"), context.settings
    model = usable(settings, as_of)
    if model.version != version:
        told = f"{as_of:%Y-%m-%d %H:%M} is not judged knowing the visit: its lists are by model version {version}"
        console.print(f"  {told}, and version {model.version} would be used there now")
        return None
    part = settings.horizon / settings.evaluation.visit_parts
    number = F.floor((F.unix_micros("visit_ts") - to_micros(as_of)) / (part.total_seconds() * 1e6)).alias(_PART)
    users = known_users(context.warehouse, as_of).join(truth.select(c.USER_ID, number), on=c.USER_ID).persist()
    lists = []
    for k in range(settings.evaluation.visit_parts):
        with prepared(night, model, asked=as_of + (k + 0.5) * part) as catalogue:
            # Made at once, while the workers have the catalogue.
            lists.append(listed(scored(users.where(F.col(_PART) == k).drop(_PART), catalogue), c.USER_ID).localCheckpoint())
    users.unpersist()
    return reduce(DataFrame.unionByName, lists)
