"""What the house hides is never available; a rule that is none is said so at once."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
import shop

from conf.load import from_tree
from features.contracts import ITEMS
from features.item_age import known_items
from features.windows import Moments
from jobs.build_features import _catalogue
from jobs.errors import UsageError
from jobs.store import house_rules
from jobs.store.table_io import schema

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def context(spark, tmp_path_factory):
    context = shop.context(spark, shop.settings(tmp_path_factory.mktemp("rules")))
    kind = schema(ITEMS)
    rows = [
        {
            "item_id": i,
            "category": category,
            "price": price,
            "release_ts": shop.NIGHT,
            "release_known": False,
            "attributes": {"brand": brand},
        }
        for i, category, price, brand in (("a", "tobacco", 5.0, "x"), ("b", "fruit", 0.5, "y"), ("c", None, None, "z"))
    ]
    for field in kind.fields:
        field.nullable = True
    context.warehouse.overwrite(
        ITEMS, spark.createDataFrame([tuple(row.get(f.name) for f in kind.fields) for row in rows], kind)
    )
    return context


def with_rule(context, hide: str | None = None, pin: str | None = None):
    tree = context.settings.resolved()
    tree["scoring"] |= {"hide": hide, "pin": pin}
    return replace(context, settings=from_tree(tree))


@pytest.mark.parametrize(
    ("hide", "offered"),
    [
        (None, {"a", "b", "c"}),
        ("category = 'tobacco'", {"b", "c"}),  # an unknown category does not hold
        ("category = 'tobacco' OR price < 1", {"c"}),
        ("attributes['brand'] IN ('z')", {"a", "b"}),
    ],
)
def test_what_the_rule_holds_for_is_not_available(context, hide, offered):
    moments = Moments.of([datetime(2030, 1, 1, tzinfo=UTC)])
    known = known_items(_catalogue(with_rule(context, hide)), moments).where("item_available")
    assert {row.item_id for row in known.collect()} == offered


@pytest.mark.parametrize("hide", ["colour = 'red'", "category =", "1 + 1", "category"])
def test_a_rule_that_is_no_condition_is_a_usage_error_that_names_it(context, hide):
    with pytest.raises(UsageError, match=r"scoring\.hide") as told:
        _catalogue(with_rule(context, hide))
    assert "category" in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(("pin", "found"), [(None, ()), ("category = 'tobacco'", ("a",)), ("price < 10", ("a", "b")), ("price > 99", ())])
def test_what_is_pinned_is_what_the_rule_holds_for(context, pin, found):
    assert house_rules.pinned_items(context.warehouse.read(ITEMS), with_rule(context, pin=pin).settings) == found


def test_more_than_can_be_in_every_slate_are_not_pinned(context, monkeypatch):
    monkeypatch.setattr(house_rules, "MOST_PINNED", 1)
    with pytest.raises(UsageError, match=r"scoring\.pin .* more than 1"):
        house_rules.pinned_items(context.warehouse.read(ITEMS), with_rule(context, pin="price < 10").settings)


def test_a_pin_that_is_no_condition_is_a_usage_error_that_names_it(context):
    with pytest.raises(UsageError, match=r"scoring\.pin"):
        house_rules.pinned_items(context.warehouse.read(ITEMS), with_rule(context, pin="colour = 'red'").settings)
