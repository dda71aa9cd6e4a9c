"""One window judged: the lists made at as_of and the baselines against what users then did.

The driver gets sums (``jobs/judging/sums.py``) and a histogram of how often items are shown. Neither grows with users.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial, reduce
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from conf.settings import Settings
from features.baselines import personal_lists, popularity_lists
from features.contracts import EVENTS, ITEM_TEMPORAL, ITEMS, RECOMMENDATIONS, USER_ITEM_REPEATS, USER_PROFILES
from features.segments import ITEM_SEGMENTS, history_segment, hour_segment, item_facts, truth_by_item
from features.served import lists_on_record
from features.truth import judged_truth
from jobs.errors import DataQualityError
from jobs.judging.hour_by_hour import hour_by_hour
from jobs.judging.sums import ALL, DEPTH, KAIROS, SERVED, TOP, Key, Sums, sums
from jobs.store.table_io import Warehouse
from model import metrics

KNOWING = "kairos knowing the visit"
NEWER = "newer_list"

#: (truth) -> user_id, items; None where there are none.
Knowing: TypeAlias = Callable[[DataFrame], DataFrame | None]
#: (truth) -> frames with user_id and a column of lists for each recommender, and the recommenders' names.
Made: TypeAlias = Callable[[DataFrame], tuple[list[DataFrame], list[str]]]


@dataclass(frozen=True)
class Judged:
    """``sums``: means of users. ``whole``: (recommender, metric) -> a number of all lists together."""

    sums: Sums
    whole: dict[tuple[str, str], float]
    users: int


def judge(warehouse: Warehouse, settings: Settings, as_of: datetime, knowing: Knowing | None = None) -> Judged:
    """Judge the users with a visible past who did something new to judge in the window, by their lists on record.

    ``knowing`` makes the lists of ``jobs/lists/visits.py``, to be judged beside the others.

    Raises DataQualityError where the feature tables do not speak for as_of.
    """
    truth = judged_truth(warehouse.read(EVENTS), as_of, settings).persist()
    try:
        judged = judge_made(warehouse, settings, as_of, truth, lambda users: _on_record(warehouse, as_of, users, knowing))
        return replace(judged, sums=judged.sums | hour_by_hour(warehouse, settings, as_of, truth))
    finally:
        truth.unpersist()


def judge_made(warehouse: Warehouse, settings: Settings, as_of: datetime, truth: DataFrame, made: Made) -> Judged:
    """Judge lists that ``made`` gives for the users of ``truth`` (``judged_truth``, persisted), beside the baselines."""
    temporal = warehouse.partition(ITEM_TEMPORAL, as_of).persist()
    facts = item_facts(temporal, warehouse.read(ITEMS)).persist()
    try:
        active = F.count_if(F.col(c.user_events("28d")) > 0).alias("n")
        (users,) = warehouse.partition(USER_PROFILES, as_of).agg(active).collect()
        (catalogue,) = temporal.agg(F.count_if("item_available").alias("n")).collect()
        if not catalogue["n"]:
            raise DataQualityError(
                f"table item_temporal has no item on offer at {as_of:%Y-%m-%dT%H:%M:%SZ}, so there are no baselines to judge "
                "beside; run jobs/build_features.py with that --as-of"
            )
        lists, names = _lists(warehouse, settings, as_of, truth, temporal, made)
        every = (
            truth.drop("seen")
            .join(truth_by_item(truth, facts), on=c.USER_ID)
            .join(lists, on=c.USER_ID)
            .join(_described(lists, names, facts), on=c.USER_ID, how="left")
            .withColumns({"history": history_segment(), "hour": hour_segment()})
            .drop("visit_ts")
        )
        found = sums(every, partial(_measured, names, max(1, users["n"])), settings.evaluation.draws)
        whole = _whole(lists, names, catalogue["n"])
        lists.unpersist()
    finally:
        for frame in (facts, temporal):
            frame.unpersist()
    judged = found[names[0], ALL, f"ndcg@{TOP}"].users if found else 0
    return Judged(found, whole, judged)


def _on_record(warehouse: Warehouse, as_of: datetime, truth: DataFrame, knowing: Knowing | None) -> tuple[list[DataFrame], list[str]]:
    """The night's lists and those that were served, with newer_list."""
    record = lists_on_record(warehouse.read(RECOMMENDATIONS), truth, as_of, DEPTH).drop("visit_ts")
    parts = [record.withColumnsRenamed({"nightly": KAIROS, "served": SERVED, "newer": NEWER})]
    names = [KAIROS, SERVED]
    if knowing is not None and (known := knowing(truth)) is not None:
        parts.append(known.withColumnsRenamed({"items": KNOWING}))
        names.append(KNOWING)
    return parts, names


def _lists(
    warehouse: Warehouse, settings: Settings, as_of: datetime, truth: DataFrame, temporal: DataFrame, made: Made
) -> tuple[DataFrame, list[str]]:
    """A row for each judged user: user_id, and the list of each recommender, which are named; NULL where it has none."""
    judging = settings.evaluation
    parts, names = made(truth)

    def add(kind: str, lists: DataFrame, half_lives: tuple[str, ...]) -> None:
        named = {half_life: f"{kind} {half_life}" for half_life in half_lives}
        parts.append(lists.withColumnsRenamed(named))
        names.extend(named.values())

    add("popularity", popularity_lists(temporal, truth, judging.popularity_half_lives, DEPTH), judging.popularity_half_lives)
    if settings.repeat_consumption:
        repeats, tie = warehouse.partition(USER_ITEM_REPEATS, as_of), judging.popularity_half_lives[-1]
        personal = personal_lists(repeats, temporal, truth, judging.personal_half_lives, tie, DEPTH)
        add("personal frequency", personal, judging.personal_half_lives)
    judged = truth.select(c.USER_ID)
    return reduce(lambda wide, part: wide.join(part, on=c.USER_ID, how="left"), parts, judged).persist(), names


def _described(lists: DataFrame, names: list[str], facts: DataFrame) -> DataFrame:
    """user_id, takers and categories: for each recommender, in order of names, those of the first items of its list."""
    each = _first_items(lists, names).join(facts.select(c.ITEM_ID, "takers", c.CATEGORY), on=c.ITEM_ID, how="left")
    placed = F.sort_array(F.collect_list(F.struct("who", "place", "takers", c.CATEGORY)))
    grouped = each.groupBy(c.USER_ID).agg(placed.alias("placed"))
    mine = [F.filter("placed", partial(_is_of, k)) for k in range(len(names))]
    return grouped.select(
        c.USER_ID,
        F.array(*[one["takers"] for one in mine]).alias("takers"),
        F.array(*[one[c.CATEGORY] for one in mine]).alias("categories"),
    )


def _is_of(who: int, placed: Column) -> Column:
    return placed["who"] == who


def _first_items(lists: DataFrame, names: list[str]) -> DataFrame:
    """user_id, who (index into names), place, item_id: what the first places of all lists hold."""
    first = [F.slice(F.col(f"`{name}`"), 1, TOP) for name in names]
    each = lists.select(c.USER_ID, F.posexplode(F.array(*first)).alias("who", "items"))
    return each.select(c.USER_ID, "who", F.posexplode("items").alias("place", c.ITEM_ID))


def _measured(names: list[str], active: int, table: pa.Table) -> Iterator[tuple[Key, np.ndarray, np.ndarray]]:
    for segment, true, chosen in _segments(table):
        part, rows = table.filter(chosen), chosen.to_numpy()
        for who, name in enumerate(names if len(part) else ()):
            for metric, values in _values(part, who, name, true, segment == ALL, active).items():
                yield (name, segment, metric), rows, values
        if segment == ALL and NEWER in part.column_names:
            yield (SERVED, ALL, NEWER), rows, pc.fill_null(part[NEWER], False).to_numpy().astype(float)


def _segments(table: pa.Table) -> Iterator[tuple[str, str, pa.ChunkedArray]]:
    """Each segment, the column with its true items, and whom to judge: who has any."""
    yield ALL, "truth", pc.is_valid(table["truth"])
    for by in ("history", "hour"):
        yield from ((name, "truth", pc.equal(table[by], name)) for name in pc.unique(table[by]).to_pylist())
    yield from ((name, name, pc.greater(pc.list_value_length(table[name]), 0)) for name in ITEM_SEGMENTS)


def _values(part: pa.Table, who: int, name: str, true: str, full: bool, active: int) -> dict[str, np.ndarray]:
    """Each user's metrics of one recommender; of segments the two that matter most."""
    hits = metrics.find_hits(part[name], part[true], DEPTH)
    found = {f"ndcg@{TOP}": metrics.ndcg(hits, TOP), f"recall@{TOP}": metrics.recall(hits, TOP)}
    if not full:
        return found
    takers, categories = (pc.list_element(part[column], who) for column in ("takers", "categories"))
    return found | {
        f"recall@{DEPTH}": metrics.recall(hits, DEPTH),
        f"mrr@{TOP}": metrics.mrr(hits, TOP),
        f"popularity@{TOP}": metrics.average_popularity(takers, active, TOP),
        f"novelty@{TOP}": metrics.novelty(takers, active, TOP),
        f"diversity@{TOP}": metrics.diversity(categories, TOP),
    }


def _whole(lists: DataFrame, names: list[str], catalogue: int) -> dict[tuple[str, str], float]:
    """Coverage and Gini index of the items that stand in the first places of all lists."""
    times = _first_items(lists, names).groupBy("who", c.ITEM_ID).agg(F.count("*").alias("times"))
    # How many items are shown n times: as many rows as there are different n, whatever the number of items.
    rows = times.groupBy("who", "times").agg(F.count("*").alias("items")).collect()
    found = {}
    for who, name in enumerate(names):
        n, items = (np.array([row[column] for row in rows if row["who"] == who]) for column in ("times", "items"))
        if len(n):
            of = max(catalogue, int(items.sum()))  # what was served later may not have been on offer at as_of
            found[name, f"coverage@{TOP}"] = float(items.sum() / of)
            found[name, f"gini@{TOP}"] = metrics.gini(n, items, of)
    return found
