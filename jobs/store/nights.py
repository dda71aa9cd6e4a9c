"""The full nights on record: which there are, and what the newest of them counted, which an hour adds to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from features.contracts import EVENTS, ITEM_SUMS
from features.windows import from_micros, unknown_at, visible
from jobs.errors import DataQualityError, UsageError
from jobs.store.run_log import finished
from jobs.store.table_io import Warehouse


@dataclass(frozen=True)
class SinceNight:
    """What an hour sees: the night's ``sums``, the events ``before`` that it counted, and those that are ``new``."""

    night: datetime
    sums: DataFrame
    before: DataFrame
    new: DataFrame


def nights(warehouse: Warehouse) -> set[datetime]:
    """as_of of each finished nightly build of features."""
    done = finished(warehouse, "build_features")
    if done is None:
        return set()
    moments = done.where(F.col(c.MODE) == "nightly").select(F.unix_micros(c.AS_OF_TS).alias("us"))
    return {from_micros(row["us"]) for row in moments.collect()}


def newest_night(warehouse: Warehouse, as_of: datetime) -> datetime:
    """The newest full night before an hour.

    Raises UsageError when a night speaks for as_of itself, and DataQualityError when there is none before it.
    """
    known = nights(warehouse)
    if as_of in known:
        raise UsageError(
            f"a full night was built at {as_of:%Y-%m-%dT%H:%M:%SZ}; an hour there would replace it: use another --as-of"
        )
    earlier = [night for night in known if night < as_of]
    if not earlier:
        raise DataQualityError("no nightly features before --as-of to refresh; run jobs/nightly.py first")
    return max(earlier)


def since_night(warehouse: Warehouse, as_of: datetime) -> SinceNight:
    """The newest night before as_of, and what became visible since: exactly once, whenever it happened or was delivered.

    New is what the version of ``events`` that the night read has since become visible, and what later versions added.
    Raises UsageError when a night speaks for as_of itself, and DataQualityError when there is none before it.
    """
    night = newest_night(warehouse, as_of)
    sums = warehouse.partition(ITEM_SUMS, night)
    version = sums.select(c.EVENTS_VERSION).first()[0]  # type: ignore[index]
    # No feature asks for the source; what is kept in memory would hold it.
    then = warehouse.read(EVENTS, version).drop(c.SOURCE)
    added = warehouse.added_since(EVENTS, version).drop(c.SOURCE)
    new = [unknown_at(visible(then, as_of), night), visible(added, as_of)]
    return SinceNight(night, sums, visible(then, night), reduce(DataFrame.unionByName, new))
