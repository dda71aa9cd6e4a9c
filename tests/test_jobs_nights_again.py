"""Any past night can be made again: features and lists equal those of the night itself, byte for byte."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import timedelta

import nights_again as again
import pytest
import shop
import stub_lists

pytestmark = [pytest.mark.spark, pytest.mark.slow]


def same(one, other, nights):
    for (table, rows), (_, others) in zip(again.rows(one, nights), again.rows(other, nights), strict=True):
        assert rows and rows == others, table


def test_two_nights_made_later_equal_the_originals(built_shop, tmp_path):
    nights = [shop.NIGHT, shop.NEXT]
    first = shop.copied(built_shop, tmp_path / "first")
    again.lists(first, nights, stub_lists.scoring)
    same(first, again.made_later(built_shop.spark, tmp_path / "later", nights, stub_lists.scoring), nights)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_seven_nights_made_later_equal_the_originals_with_the_lists_of_a_model(spark, tmp_path):
    nights = [shop.NIGHT - timedelta(days=k) for k in reversed(range(7))]
    model = {"mlflow": {"tracking_uri": f"sqlite:///{tmp_path}/mlflow.db", "artifacts": str(tmp_path / "artifacts")}}
    first = again.as_they_happened(spark, tmp_path / "first", nights, nullcontext, train=True, **model)
    same(first, again.made_later(spark, tmp_path / "later", nights, nullcontext, **model), nights)
