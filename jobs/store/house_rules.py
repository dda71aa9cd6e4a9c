"""Rules of the house that are SQL over table ``items``: whether one is a condition at all, and which items are pinned."""

from __future__ import annotations

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from conf.settings import Settings
from features.contracts import ITEMS
from jobs.errors import UsageError

MOST_PINNED = 200
"""Each is in every slate."""


def need_condition(items: DataFrame, name: str, rule: str | None) -> None:
    """Raises UsageError, naming the setting, where a rule is no condition on an item."""
    if rule is None:
        return
    try:
        kind = items.selectExpr(rule).schema.fields[0].dataType.simpleString()
        wrong = "" if kind == "boolean" else f"it is of type {kind}"
    except AnalysisException as error:  # a ParseException is one
        wrong = str(error).strip().splitlines()[0]
    if wrong:
        raise UsageError(f"{name} = {rule!r} is not a condition on an item ({wrong}); columns of table items: {', '.join(ITEMS.column_names)}")


def pinned_items(items: DataFrame, settings: Settings) -> tuple[str, ...]:
    """item_id of what ``scoring.pin`` holds for, in order. Raises UsageError for too many, or for a rule that is none."""
    rule = settings.scoring.pin
    need_condition(items, "scoring.pin", rule)
    if rule is None:
        return ()
    found = items.where(F.expr(rule)).select(c.ITEM_ID).orderBy(c.ITEM_ID).limit(MOST_PINNED + 1).collect()
    if len(found) > MOST_PINNED:
        raise UsageError(f"scoring.pin = {rule!r} holds for more than {MOST_PINNED} items: pin fewer")
    return tuple(row[c.ITEM_ID] for row in found)
