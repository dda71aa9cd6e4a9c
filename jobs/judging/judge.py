"""One window judged: the lists made at as_of and the baselines against what users then did, as sums that add up over windows.

The workers give each user's metrics a weight in every draw of the bootstrap and return sums; the driver gets one row a
recommender, segment and metric, and a histogram of how often items are shown. Neither grows with users.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
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
from jobs.store.table_io import Warehouse
from model import metrics
from model.metrics import Draws

KAIROS = "kairos"
SERVED = "kairos as served"
KNOWING = "kairos knowing the visit"
ALL = "all"
NEWER = "newer_list"
DEPTH = 20
_TOP = 10

#: Recommender, segment, metric.
Key: TypeAlias = tuple[str, str, str]
Sums: TypeAlias = dict[Key, Draws]
#: (truth) -> user_id, items; None where there are none.
Knowing: TypeAlias = Callable[[DataFrame], DataFrame | None]
#: (truth) -> frames with user_id and a column of lists for each recommender, and the recommenders' names.
Made: TypeAlias = Callable[[DataFrame], tuple[list[DataFrame], list[str]]]
_SUMS = "recommender STRING, segment STRING, metric STRING, total ARRAY<DOUBLE>, weight ARRAY<DOUBLE>"


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
    truth = judged_truth(warehouse.read(EVENTS), as_of, settings)
    return judge_made(warehouse, settings, as_of, truth, lambda users: _on_record(warehouse, as_of, users, knowing))


def judge_made(warehouse: Warehouse, settings: Settings, as_of: datetime, truth: DataFrame, made: Made) -> Judged:
    """Judge lists that ``made`` gives for the users of ``truth`` (``judged_truth``), beside the baselines."""
    temporal = warehouse.partition(ITEM_TEMPORAL, as_of).persist()
    facts = item_facts(temporal, warehouse.read(ITEMS)).persist()
    truth = truth.persist()
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
            .withColumns({"key": F.xxhash64(c.USER_ID), "history": history_segment(), "hour": hour_segment()})
            # In an order of its own, so that sums of floating point are the same in every run.
            .repartition(warehouse.spark.sparkContext.defaultParallelism, c.USER_ID)
            .sortWithinPartitions(c.USER_ID)
            .drop("visit_ts")
        )
        sums = _sums(every, names, max(1, users["n"]), settings.evaluation.draws)
        whole = _whole(lists, names, catalogue["n"])
        lists.unpersist()
    finally:
        for frame in (facts, truth, temporal):
            frame.unpersist()
    judged = sums[names[0], ALL, f"ndcg@{_TOP}"].users if sums else 0
    return Judged(sums, whole, judged)


def _on_record(warehouse: Warehouse, as_of: datetime, truth: DataFrame, knowing: Knowing | None) -> tuple[list[DataFrame], list[str]]:
    """The night's lists and those that were served, with newer_list."""
    record = lists_on_record(warehouse.read(RECOMMENDATIONS), truth, as_of, DEPTH)
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
    first = [F.slice(F.col(f"`{name}`"), 1, _TOP) for name in names]
    each = lists.select(c.USER_ID, F.posexplode(F.array(*first)).alias("who", "items"))
    return each.select(c.USER_ID, "who", F.posexplode("items").alias("place", c.ITEM_ID))


def _sums(every: DataFrame, names: list[str], active: int, draws: int) -> Sums:
    parts = every.mapInArrow(_adder(names, active, draws), _SUMS)
    added = parts.groupBy("recommender", "segment", "metric").agg(*[_add_up(k, draws) for k in ("total", "weight")])
    return {tuple(row[:3]): Draws(np.array(row["total"]), np.array(row["weight"])) for row in added.collect()}


def _add_up(column: str, draws: int) -> Column:
    """The arrays of a group added, number by number; sorted first, so that the sum is the same in every run."""
    none = F.array_repeat(F.lit(0.0), draws + 1)
    parts = F.sort_array(F.collect_list(column))
    return F.reduce(parts, none, lambda sums, part: F.zip_with(sums, part, lambda a, b: a + b)).alias(column)


def added(parts: Iterable[tuple[Key, Draws]]) -> Sums:
    """The sums of each key. A user's weights are the same in every window, so intervals of several are of users, not of lists."""
    found: Sums = {}
    for key, one in parts:
        found[key] = found[key] + one if key in found else one
    return found


def _adder(
    names: list[str], active: int, draws: int
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The body of the UDF: the sums of a partition, once all of it was read."""

    def body(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        tables = (pa.Table.from_batches([batch]) for batch in batches)
        found = added(part for table in tables for part in _measured(table, names, active, draws))
        rows = [(*key, one.total.tolist(), one.weight.tolist()) for key, one in found.items()]
        columns = ["recommender", "segment", "metric", "total", "weight"]
        if rows:
            yield pa.RecordBatch.from_arrays([pa.array(column) for column in zip(*rows, strict=True)], names=columns)

    return body


def _measured(table: pa.Table, names: list[str], active: int, draws: int) -> Iterator[tuple[Key, Draws]]:
    weights = metrics.poisson_weights(table["key"].to_numpy(), draws)
    for segment, true, chosen in _segments(table):
        part = table.filter(chosen)
        weight = weights[chosen.to_numpy()]
        for who, name in enumerate(names if len(part) else ()):
            for metric, values in _values(part, who, name, true, segment == ALL, active).items():
                yield (name, segment, metric), Draws.of(values, weight)
        if segment == ALL and NEWER in part.column_names:
            yield (SERVED, ALL, NEWER), Draws.of(pc.fill_null(part[NEWER], False).to_numpy().astype(float), weight)


def _segments(table: pa.Table) -> Iterator[tuple[str, str, pa.ChunkedArray]]:
    """Each segment, the column with its true items, and whom to judge: who has any."""
    yield ALL, "truth", pc.is_valid(table["truth"])
    for by in ("history", "hour"):
        yield from ((name, "truth", pc.equal(table[by], name)) for name in pc.unique(table[by]).to_pylist())
    yield from ((name, name, pc.greater(pc.list_value_length(table[name]), 0)) for name in ITEM_SEGMENTS)


def _values(part: pa.Table, who: int, name: str, true: str, full: bool, active: int) -> dict[str, np.ndarray]:
    """Each user's metrics of one recommender; of segments the two that matter most."""
    hits = metrics.find_hits(part[name], part[true], DEPTH)
    found = {f"ndcg@{_TOP}": metrics.ndcg(hits, _TOP), f"recall@{_TOP}": metrics.recall(hits, _TOP)}
    if not full:
        return found
    takers, categories = (pc.list_element(part[column], who) for column in ("takers", "categories"))
    return found | {
        f"recall@{DEPTH}": metrics.recall(hits, DEPTH),
        f"mrr@{_TOP}": metrics.mrr(hits, _TOP),
        f"popularity@{_TOP}": metrics.average_popularity(takers, active, _TOP),
        f"novelty@{_TOP}": metrics.novelty(takers, active, _TOP),
        f"diversity@{_TOP}": metrics.diversity(categories, _TOP),
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
            found[name, f"coverage@{_TOP}"] = float(items.sum() / of)
            found[name, f"gini@{_TOP}"] = metrics.gini(n, items, of)
    return found
