"""A generated shop of any size as a prepared moment and rows of users in the scorer's format, made by numpy in seconds.

The weights are drawn, not learned: what scoring costs does not depend on them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from conf import columns as c
from conf.load import from_tree
from conf.settings import Settings
from features.contracts import USER_PROFILES
from model import predict
from model.as_of.catalogue import Catalogue, build_catalogue
from model.as_of.ease import ITEMS, KEPT, Ease
from model.as_of.item_state import DAY_US, HOUR_US
from model.layers.item_temporal import ItemTable
from model.layers.recommend import Ranker
from model.network import Encoder
from model.slate.signals import signal_names
from model.spec import PREDICT_TABLES, TRAIN_TABLES, PredictSpec, TableRef, TrainSpec
from model.training.trained import Trained
from model.versions import checkpoint

NOW = 19_700 * DAY_US
WEEK_US = 7 * DAY_US
UTC = pa.timestamp("us", tz="UTC")
CATEGORIES, BRANDS, TYPES = 60, 400, 800
BLOCK = 10_000
_NEIGHBORS = 50


def settings(width: int, slate: dict[str, int]) -> Settings:
    """The defaults, but for the width of vectors and what each source gives."""
    events = {"path": "x", "columns": {"user_id": "u", "item_id": "i", "event_ts": "t"}}
    return from_tree({"domain": "bench", "source": {"events": events}, "model": {"width": width}, "slate": slate})


def ids(prefix: str, numbers: np.ndarray) -> pa.Array:
    return pa.array(np.char.add(prefix, np.char.zfill(numbers.astype(str), 7)))


def moments(us: np.ndarray) -> pa.Array:
    return pa.array(us.astype(np.int64)).cast(UTC)


def _lists(values: pa.Array, counts: np.ndarray) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32()), values)


def items_tables(items: int) -> dict[str, pa.Table]:
    """``items``, ``item_temporal`` and ``item_neighbors`` at NOW."""
    rng = np.random.default_rng(1)
    every = np.arange(items)
    names = ids("i", every)
    kind = rng.integers(TYPES, size=items)
    facets = np.stack([np.full(items, "brand"), np.char.add("b", rng.integers(BRANDS, size=items).astype(str))], axis=1)
    attributes = pa.MapArray.from_arrays(
        pa.array(np.arange(items + 1), pa.int32()), pa.array(facets[:, 0]), pa.array(facets[:, 1])
    )
    release = NOW - rng.integers(HOUR_US, 700 * DAY_US, items)
    catalogue = pa.table({
        c.ITEM_ID: names, c.RELEASE_TS: moments(release), "release_known": np.ones(items, bool),
        "available_from": pa.nulls(items, UTC), "available_until": pa.nulls(items, UTC),
        c.TITLE: np.char.add("TYPE ", kind.astype(str)), c.CATEGORY: np.char.add("c", (kind % CATEGORIES).astype(str)),
        c.PRICE: rng.lognormal(size=items), c.ATTRIBUTES: attributes, c.EMBEDDING: pa.nulls(items, pa.list_(pa.float32())),
    })  # fmt: skip
    heat = rng.pareto(1.2, items) + 0.05
    age = (NOW - release) / DAY_US
    temporal: dict = {
        c.AS_OF_TS: moments(np.full(items, NOW)), c.ITEM_ID: names, "item_release_known": np.ones(items, bool),
        "item_age_days": age, "item_available": rng.random(items) < 0.97, "item_sales_all": (heat * age).astype(np.int64),
        "item_users_28d": rng.poisson(heat * 28),
        **{c.item_sales(w): rng.poisson(heat * s / 86_400) for w, s in c.WINDOWS.items()},
        **{c.item_decayed(h): heat * s / 86_400 * rng.random(items) for h, s in c.ITEM_HALF_LIVES.items()},
        **{name: rng.normal(size=items) * 0.3 for name in ("item_trend_1d_7d", "item_trend_7d_28d", "item_acceleration")},
        "item_idle_days": np.minimum(1 / heat, age), "item_days_since_peak": rng.integers(0, 56, items).astype(float),
        "item_repurchase_days": rng.uniform(5, 60, items), "item_life_stage": rng.choice(c.LIFE_STAGES, items),
        **{f"item_{cycle}_{part}": rng.random(items) for cycle in ("daily", "weekly") for part in ("strength", "phase")},
    }  # fmt: skip
    for name, buckets, rate in (("item_hours", c.HOUR_BUCKETS, heat / 24), ("item_days", c.DAY_BUCKETS, heat)):
        sales = rng.poisson(np.repeat(rate, buckets)).astype(np.int32)
        temporal[name] = _lists(pa.array(sales), np.full(items, buckets))
    near = np.sort((every[:, None] + 1 + (rng.random((items, _NEIGHBORS)) ** 3 * (items - 1)).astype(int)) % items, axis=1)
    fresh = np.concatenate([np.ones((items, 1), bool), near[:, 1:] != near[:, :-1]], axis=1)
    left, right = np.repeat(every, _NEIGHBORS)[fresh.ravel()], near.ravel()[fresh.ravel()]
    neighbors = pa.table({
        c.AS_OF_TS: moments(np.full(len(left), NOW)), c.ITEM_ID: names.take(pa.array(left)),
        c.NEIGHBOR_ID: names.take(pa.array(right)), "neighbor_weight": rng.random(len(left)) ** 2,
    })  # fmt: skip
    return {"items": catalogue, "item_temporal": pa.table(temporal), "item_neighbors": neighbors}


def user_rows(first: int, users: int, items: int) -> pa.Table:
    """Rows of users ``first`` and on, as ``features.user_inputs`` makes them. 20 to 100 events, half of them habits."""
    rng = np.random.default_rng((2, first))
    counts = rng.integers(20, 101, users)
    row = np.repeat(np.arange(users), counts)
    own = rng.integers(items, size=(users, 25))
    item = np.where(rng.random(len(row)) < 0.6, own[row, (rng.random(len(row)) ** 2 * 25).astype(int)],
                    (rng.random(len(row)) ** 3 * items).astype(int))  # fmt: skip
    age = (rng.exponential(40, len(row)) * DAY_US).astype(np.int64) + rng.integers(1, DAY_US, len(row))
    us = (NOW - age)[np.lexsort((-age, row))]
    names = ids("i", np.arange(items))
    kinds = np.array(["purchase", "view", "cart"])[rng.choice(3, len(row), p=[0.7, 0.2, 0.1])]
    out: dict = {
        c.USER_ID: ids("u", first + np.arange(users)), "item_ids": _lists(names.take(pa.array(item)), counts),
        "event_types": _lists(pa.array(kinds), counts), "event_us": _lists(pa.array(us), counts),
        "event_values": _lists(pa.array(rng.integers(1, 4, len(row)).astype(float)), counts),
        "session_starts": _lists(pa.array(rng.random(len(row)) < 0.3), counts), "sequence_events": counts * 2,
    }  # fmt: skip
    for column in USER_PROFILES.columns:
        if column.type in ("BIGINT", "DOUBLE"):
            out[column.name] = rng.poisson(8, users).astype(np.int64 if column.type == "BIGINT" else float)
    for name, width in (("user_hour_habit", 24), ("user_weekday_habit", 7)):
        out[name] = _lists(pa.array(rng.dirichlet(np.ones(width), users).ravel()), np.full(users, width))
    for term in ("long", "short"):
        told = np.char.add("c", rng.integers(CATEGORIES, size=users * 8).astype(str))
        out[f"user_{term}_categories"] = _lists(pa.array(told), np.full(users, 8))
        out[f"user_{term}_weights"] = _lists(pa.array(np.tile(np.arange(8, 0, -1) / 36, users)), np.full(users, 8))
    return pa.table(out | _repeats(row, item, us, names, users))


def _repeats(row: np.ndarray, item: np.ndarray, us: np.ndarray, names: pa.Array, users: int) -> dict[str, pa.Array]:
    key = row * np.int64(len(names)) + item
    pair, first, inverse, count = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
    last = np.zeros(len(pair), np.int64)
    np.maximum.at(last, inverse, us)
    days = (NOW - us) / DAY_US
    decayed = {h: np.bincount(inverse, np.exp2(-days * 86_400 / s)) for h, s in c.REPEAT_HALF_LIVES.items()}
    owner = pair // len(names)
    order = np.lexsort((pair, -decayed["90d"], owner))
    counts = np.bincount(owner, minlength=users)
    gap = np.where(count > 1, days[first] / np.maximum(count, 1), np.nan)
    flat = {
        "repeat_item_ids": names.take(pa.array(pair % len(names))), "repeat_counts": pa.array(count),
        "repeat_values": pa.array(count * 1.5), "repeat_first_us": pa.array(us[first]), "repeat_last_us": pa.array(last),
        "repeat_gap_days": pa.array(gap, mask=np.isnan(gap)), **{c.repeat_decayed(h): pa.array(v) for h, v in decayed.items()},
    }  # fmt: skip
    return {name: _lists(values.take(pa.array(order)), counts) for name, values in flat.items()}


def blocks(users: int, items: int) -> Iterator[pa.Table]:
    """All users, BLOCK at a time."""
    for first in range(0, users, BLOCK):
        yield user_rows(first, min(BLOCK, users - first), items)


def sequences(rows: pa.Table) -> pa.Table:
    """``user_sequences`` of these rows, for the audience."""
    tss = rows["event_us"].combine_chunks()
    moment = moments(np.full(len(rows), NOW))
    return pa.table({
        c.AS_OF_TS: moment, c.USER_ID: rows[c.USER_ID], "item_ids": rows["item_ids"],
        "event_tss": pa.ListArray.from_arrays(tss.offsets, tss.values.cast(UTC)),
    })  # fmt: skip


def drawn(catalogue: Catalogue, made: Settings) -> Trained:
    """A model of a catalogue that has learned nothing."""
    items = len(catalogue)
    torch.manual_seed(0)
    rng = np.random.default_rng(3)
    encoder = Encoder(items + 1, 0, made.model)
    ranker = Ranker(len(signal_names(catalogue.facet_names)), len(catalogue.facet_names), made.model)
    torch.nn.init.normal_(ranker.straight.weight, std=0.2)
    sold = rng.integers(1, 200, items).astype(np.float32)
    basis = rng.normal(size=(items, 64)).astype(np.float32) / 8
    common = np.sort(rng.choice(items, min(items, ITEMS), replace=False))
    other = np.sort(rng.integers(0, len(common), (len(common), KEPT)), axis=1).astype(np.int32)
    ease = Ease(items, common, other, rng.exponential(0.02, other.shape).astype(np.float32))
    return Trained(encoder, ranker, catalogue, ItemTable(catalogue, np.zeros(items)), sold, basis, ease, made)


def prepared(folder: Path, items: int, made: Settings, sample: pa.Table, top_k: int) -> Path:
    """A prepared moment: drawn weights, audiences of the ``sample`` of users."""
    tables = items_tables(items) | {"user_sequences": sequences(sample)}
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    refs = {t: TableRef(path=str(folder / f"{t}.parquet"), format="parquet") for t in TRAIN_TABLES}
    catalogue = build_catalogue(tables["items"], tables["items"][c.ITEM_ID].combine_chunks())
    told = TrainSpec(tables=refs, as_of_us=NOW, anchors_us=(NOW - WEEK_US,), horizon_us=WEEK_US,
                     settings=made.resolved(), output=str(folder / "bundle"))  # fmt: skip
    digest = checkpoint.save(drawn(catalogue, made), told)
    asked = PredictSpec(tables={t: refs[t] for t in PREDICT_TABLES}, as_of_us=NOW, top_k=top_k)
    return predict.prepare(folder / "bundle", asked, folder / "prepared", digest)
