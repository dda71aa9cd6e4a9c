"""The list that each user was shown against what the user took in that hour, beside the night's: what hours of lists are worth."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from conf.settings import Settings
from features.contracts import EVENTS, RECOMMENDATIONS
from features.served import lists_on_record
from features.truth import truth_by_hour
from jobs.judging.sums import KAIROS, SERVED, TOP, Key, Sums, sums
from jobs.store.table_io import Warehouse
from model import metrics

HOUR_BY_HOUR = "hour by hour"
_LISTS = {KAIROS: "nightly", SERVED: "served"}


def hour_by_hour(warehouse: Warehouse, settings: Settings, as_of: datetime, truth: DataFrame) -> Sums:
    """Means over all hours in which a user of ``truth`` (``judged_truth``) took what is true; a user's hours are drawn together.

    Empty where nothing but the night's lists was made in the window: every hour was shown these.
    """
    record = warehouse.read(RECOMMENDATIONS)
    later = (F.col(c.AS_OF_TS) > F.lit(as_of)) & (F.col(c.AS_OF_TS) < F.lit(as_of + settings.horizon))
    if record.where(later).isEmpty():
        return {}
    hours = truth_by_hour(warehouse.read(EVENTS), truth, as_of, settings).persist()
    shown = lists_on_record(record, hours, as_of, TOP)
    found = sums(hours.join(shown, on=[c.USER_ID, "visit_ts"], how="left"), _measured, settings.evaluation.draws, "visit_ts")
    hours.unpersist()
    return found


def _measured(table: pa.Table) -> Iterator[tuple[Key, np.ndarray, np.ndarray]]:
    every = np.ones(len(table), dtype=bool)
    for who, column in _LISTS.items():
        hits = metrics.find_hits(table[column], table["truth"], TOP)
        yield (who, HOUR_BY_HOUR, f"ndcg@{TOP}"), every, metrics.ndcg(hits, TOP)
        yield (who, HOUR_BY_HOUR, f"recall@{TOP}"), every, metrics.recall(hits, TOP)
