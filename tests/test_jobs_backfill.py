"""A range of past nights: what is done is skipped, in either order the rows are the same."""

from __future__ import annotations

from datetime import timedelta

import pytest
import shop

from features.contracts import ITEM_TEMPORAL, RUNS, USER_SEQUENCES
from jobs.backfill import _distance, backfill, moments
from jobs.errors import UsageError
from jobs.ingest import ingest
from jobs.nights import nights

DAY = timedelta(days=1)
SINCE = shop.NIGHT - 2 * DAY


def test_the_moments_of_a_range_end_at_as_of_and_are_not_before_since():
    assert moments(SINCE - timedelta(hours=5), shop.NIGHT, DAY) == [SINCE, SINCE + DAY, shop.NIGHT]
    with pytest.raises(UsageError, match="swap them"):
        moments(shop.NIGHT, SINCE, DAY)


def test_a_distance_is_hours_or_days():
    assert (_distance("6h"), _distance("2d")) == (timedelta(hours=6), 2 * DAY)
    for text in ("0d", "1w", "-1d", ""):
        with pytest.raises(UsageError, match="6h or 1d"):
            _distance(text)


def built(context):
    runs = context.warehouse.read(RUNS).where("job = 'build_features'").orderBy("started_ts").collect()
    return [row.as_of_ts.replace(tzinfo=shop.START.tzinfo) for row in runs]


@pytest.mark.spark
@pytest.mark.slow
def test_nights_are_built_newest_first_and_only_what_is_missing(spark, tmp_path):
    shop.events(n=300).to_csv(tmp_path / "log.csv", index=False)
    context = shop.context(spark, shop.settings(tmp_path))
    ingest(context)
    backfill(context, shop.NIGHT, DAY, newest_first=True)
    assert built(context) == [shop.NIGHT]
    backfill(context, SINCE, DAY, newest_first=True)
    assert built(context) == [shop.NIGHT, SINCE + DAY, SINCE]
    assert nights(context.warehouse) == {SINCE, SINCE + DAY, shop.NIGHT}

    def rows(table):
        return sorted(map(str, context.warehouse.read(table).collect()))

    before = rows(USER_SEQUENCES), rows(ITEM_TEMPORAL)
    backfill(context, SINCE, DAY, newest_first=False)
    assert len(built(context)) == 3
    assert (rows(USER_SEQUENCES), rows(ITEM_TEMPORAL)) == before
