"""A range of past nights: what is on record is skipped, from either end."""

from __future__ import annotations

from datetime import timedelta

import pytest
import shop

from jobs.backfill import backfill, distance, moments
from jobs.errors import DataQualityError, UsageError
from jobs.store.nights import nights
from jobs.store.run_log import recorded

DAY = timedelta(days=1)
SINCE = shop.NIGHT - 2 * DAY


def test_the_moments_of_a_range_end_at_as_of_and_are_not_before_since():
    assert moments(SINCE - timedelta(hours=5), shop.NIGHT, DAY) == [SINCE, SINCE + DAY, shop.NIGHT]
    with pytest.raises(UsageError, match="swap them"):
        moments(shop.NIGHT, SINCE, DAY)


def test_a_distance_is_hours_or_days():
    assert (distance("6h"), distance("2d")) == (timedelta(hours=6), 2 * DAY)
    for text in ("0d", "1w", "-1d", ""):
        with pytest.raises(UsageError, match="6h or 1d"):
            distance(text)


@pytest.mark.spark
def test_nights_are_built_newest_first_and_only_what_is_missing(spark, tmp_path, monkeypatch):
    built = []

    def build(context, backfill):
        assert not backfill
        with recorded(context.warehouse, "build_features", context.mode, context.as_of):
            built.append(context.as_of)

    monkeypatch.setattr("jobs.backfill.build", build)
    context = shop.context(spark, shop.settings(tmp_path))
    backfill(context, shop.NIGHT, DAY, newest_first=True)
    assert built == [shop.NIGHT]
    backfill(context, SINCE, DAY, newest_first=True)
    assert built == [shop.NIGHT, SINCE + DAY, SINCE]
    backfill(context, SINCE - DAY, DAY, newest_first=False)
    assert built[3:] == [SINCE - DAY]
    assert nights(context.warehouse) == set(built)


@pytest.mark.spark
def test_a_night_that_failed_is_built_again(spark, tmp_path, monkeypatch):
    def build(context, backfill):
        with recorded(context.warehouse, "build_features", context.mode, context.as_of):
            raise DataQualityError("no")

    monkeypatch.setattr("jobs.backfill.build", build)
    context = shop.context(spark, shop.settings(tmp_path))
    with pytest.raises(DataQualityError):
        backfill(context, shop.NIGHT, DAY, newest_first=False)
    assert nights(context.warehouse) == set()
