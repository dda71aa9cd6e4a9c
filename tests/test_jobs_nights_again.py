"""Any past night can be made again: features and lists equal those of the night itself, byte for byte."""

from __future__ import annotations

from contextlib import nullcontext

import nights_again as again
import pytest
import stub_lists

pytestmark = [pytest.mark.spark, pytest.mark.slow]


def same(one, other, count):
    for (table, rows), (_, others) in zip(again.rows(one, count), again.rows(other, count), strict=True):
        assert rows and rows == others, table


def test_two_nights_made_later_equal_the_originals(spark, tmp_path):
    first = again.as_they_happened(spark, tmp_path / "first", 2, stub_lists.scoring)
    same(first, again.made_later(spark, tmp_path / "later", 2, stub_lists.scoring), 2)


@pytest.mark.soak
def test_seven_nights_made_later_equal_the_originals_with_the_lists_of_a_model(spark, tmp_path):
    model = {"mlflow": {"tracking_uri": f"sqlite:///{tmp_path}/mlflow.db", "artifacts": str(tmp_path / "artifacts")}}
    first = again.as_they_happened(spark, tmp_path / "first", 7, nullcontext, train=True, **model)
    same(first, again.made_later(spark, tmp_path / "later", 7, nullcontext, **model), 7)
