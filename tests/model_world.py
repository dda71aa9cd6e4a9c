"""A small generated shop as the seven tables the trainer reads, written as parquet, by plain numpy.

Deliberately simple: what the tests need to hold is planted here, and every feature is computed the slow way.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from conf import columns as c
from conf.load import from_tree
from conf.settings import Settings
from model.as_of.item_state import DAY_US
from model.spec import TRAIN_TABLES, TableRef, TrainSpec

START = 1_600_000_000_000_000 // DAY_US * DAY_US
UTC = pa.timestamp("us", tz="UTC")


def settings(**over: object) -> Settings:
    """Small and quick; ``over`` holds whole groups, e.g. ``training={"epochs": 2}``."""
    events = {"path": "x", "columns": {"user_id": "u", "item_id": "i", "event_ts": "t"}}
    tree: dict = {
        "domain": "world", "source": {"events": events}, "horizon": "7d", "top_k": 5,
        "model": {"width": 16, "dropout": 0.0}, "features": {"sequence_length": 30},
        "slate": {"retrieved": 10, "repeats": 10, "trending": 4, "released": 4, "neighbors": 8},
        "training": {"anchors": 2, "batch_users": 16, "negatives": 32, "epochs": 3, "ranker_epochs": 90, "threads": 1},
    }  # fmt: skip
    for group, values in over.items():
        tree[group] = tree.get(group, {}) | values if isinstance(values, dict) else values
    return from_tree(tree)


def shop(seed: int = 0, users: int = 40, items: int = 60, days: int = 60) -> list[tuple[str, str, int]]:
    """Events (user, item, microseconds): each user has a habit, and one item a week rises for everyone."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        habit = rng.choice(items, 4, replace=False)
        for day in np.flatnonzero(rng.random(days) < 0.6):
            hot = (day // 7) % items
            item = rng.choice([rng.choice(habit), hot, rng.integers(items)], p=[0.6, 0.25, 0.15])
            rows.append((f"u{user:03d}", f"i{item:03d}", int(START + day * DAY_US + rng.integers(DAY_US))))
    return sorted(rows, key=lambda r: (r[2], r[0], r[1]))


def poisoned(events: list[tuple[str, str, int]], since: int) -> list[tuple[str, str, int]]:
    """The same users at the same times with other items: what the model is given before ``since`` must not move."""
    items = sorted({e[1] for e in events})
    return [(u, items[-1 - items.index(i)] if t >= since else i, t) for u, i, t in events]


def write_tables(folder: Path, events: list[tuple[str, str, int]], moments: list[int], horizon_us: int) -> None:
    """Write the tables with a partition of each feature table at each moment; the last one has all users."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = [f"{n:06d}" for n in range(len(events))]
    user, item, us = [e[0] for e in events], [e[1] for e in events], [e[2] for e in events]
    n = len(events)
    _write(folder, "events", [pa.table({
        "event_id": ids, "user_id": user, "item_id": item, "event_type": ["purchase"] * n, "event_ts": _ts(us),
        "available_ts": _ts(us), "value": [1.0] * n, "session_id": pa.nulls(n, pa.string()), "source": ["world"] * n,
    })])  # fmt: skip
    catalogue = sorted(set(item))
    k = len(catalogue)
    _write(folder, "items", [pa.table({
        "item_id": catalogue, "release_ts": _ts([min(t for _, i, t in events if i == x) for x in catalogue]),
        "release_known": [False] * k, "available_from": pa.nulls(k, UTC), "available_until": pa.nulls(k, UTC),
        "title": [f"title of {x}" for x in catalogue], "category": [f"c{int(x[1:]) % 5}" for x in catalogue],
        "price": pa.nulls(k, pa.float64()), "attributes": pa.array([[]] * k, pa.map_(pa.string(), pa.string())),
        "embedding": pa.nulls(k, pa.list_(pa.float32())),
    })])  # fmt: skip
    parts: dict[str, list[pa.Table]] = {name: [] for name in TRAIN_TABLES if name not in ("events", "items")}
    for moment in moments:
        past = [e for e in events if e[2] < moment]
        labelled = {e[0] for e in events if moment <= e[2] < moment + horizon_us}
        kept = sorted({e[0] for e in past} & (labelled if moment != moments[-1] else {e[0] for e in past}))
        for name, table in _partition(past, kept, moment).items():
            parts[name].append(table)
    for name, tables in parts.items():
        _write(folder, name, tables)


def spec(folder: Path, moments: list[int], made: Settings, output: Path, repeat: bool = True) -> TrainSpec:
    """The specification of a run over what ``write_tables`` wrote; the last moment is as_of."""
    return TrainSpec(
        tables={t: TableRef(path=str(folder / f"{t}.parquet"), format="parquet") for t in TRAIN_TABLES},
        as_of_us=moments[-1], anchors_us=tuple(moments[:-1]), horizon_us=7 * DAY_US, repeat_consumption=repeat,
        settings=made.resolved(), output=str(output),
    )  # fmt: skip


def _ts(us: list[int]) -> pa.Array:
    return pa.array(us, pa.int64()).cast(UTC)


def _write(folder: Path, name: str, tables: list[pa.Table]) -> None:
    pq.write_table(pa.concat_tables(tables), folder / f"{name}.parquet")


def _partition(past: list[tuple[str, str, int]], users: list[str], now: int) -> dict[str, pa.Table]:
    mine = {u: [e for e in past if e[0] == u] for u in users}
    return {
        "user_sequences": _sequences(mine, now), "user_profiles": _profiles(mine, now), "user_item_repeats": _repeats(mine, now),
        "item_temporal": _temporal(past, now), "item_neighbors": _neighbors(past, now),
    }  # fmt: skip


def _sequences(mine: dict[str, list], now: int) -> pa.Table:
    tails = [rows[-30:] for rows in mine.values()]
    times = pa.array([[e[2] for e in t] for t in tails], pa.list_(pa.int64()))
    return pa.table({
        "as_of_ts": _ts([now] * len(mine)), "user_id": list(mine), "item_ids": [[e[1] for e in t] for t in tails],
        "event_types": [["purchase"] * len(t) for t in tails], "event_tss": times.cast(pa.list_(UTC)),
        "event_values": [[1.0] * len(t) for t in tails], "session_starts": [[True] * len(t) for t in tails],
        "sequence_events": [len(r) for r in mine.values()],
    })  # fmt: skip


def _profiles(mine: dict[str, list], now: int) -> pa.Table:
    rows = list(mine.values())
    ages = [np.array([(now - e[2]) / DAY_US for e in r]) for r in rows]
    days = {"1h": 1 / 24, "6h": 0.25, "1d": 1, "7d": 7, "28d": 28, "all": np.inf}
    out: dict = {"as_of_ts": _ts([now] * len(rows)), "user_id": list(mine)}
    for window, most in days.items():
        out[c.user_events(window)] = [int((a <= most).sum()) for a in ages]
    for kind in c.EVENT_TYPES:
        for window in ("1d", "7d", "28d", "all"):
            out[c.user_type_events(kind, window)] = [
                int((a <= days[window]).sum()) if kind == "purchase" else 0 for a in ages
            ]
    out["user_items_all"] = [len({e[1] for e in r}) for r in rows]
    for name in ("user_sessions_28d", "user_sessions_all"):
        out[name] = [len(r) for r in rows]
    for name in ("user_dwell_seconds_28d", "user_depth_items", "user_depth_categories", "user_cadence_days"):
        out[name] = [1.0] * len(rows)
    out["user_recency_days"], out["user_tenure_days"] = [float(a.min()) for a in ages], [float(a.max()) for a in ages]
    out["user_hour_habit"], out["user_weekday_habit"] = [[1 / 24] * 24] * len(rows), [[1 / 7] * 7] * len(rows)
    for term in ("long", "short"):
        names = [sorted({f"c{int(e[1][1:]) % 5}" for e in r}) for r in rows]
        out[f"user_{term}_categories"], out[f"user_{term}_weights"] = names, [[1 / len(x)] * len(x) for x in names]
    return pa.table(out)


def _repeats(mine: dict[str, list], now: int) -> pa.Table:
    rows = [(u, i, sorted(e[2] for e in r if e[1] == i)) for u, r in mine.items() for i in sorted({e[1] for e in r})]
    ages = [(now - np.array(t)) / DAY_US for _, _, t in rows]
    gaps = [float(np.median(np.diff(t))) / DAY_US if len(t) > 1 else None for _, _, t in rows]
    return pa.table({
        "as_of_ts": _ts([now] * len(rows)), "user_id": [r[0] for r in rows], "item_id": [r[1] for r in rows],
        "repeat_count": [len(r[2]) for r in rows], "repeat_value": [float(len(r[2])) for r in rows],
        "repeat_first_ts": _ts([r[2][0] for r in rows]), "repeat_last_ts": _ts([r[2][-1] for r in rows]),
        "repeat_gap_days": pa.array(gaps, pa.float64()),
        **{c.repeat_decayed(h): [float((0.5 ** (a * 86400 / s)).sum()) for a in ages] for h, s in c.REPEAT_HALF_LIVES.items()},
    })  # fmt: skip


def _temporal(past: list[tuple[str, str, int]], now: int) -> pa.Table:
    ids = sorted({e[1] for e in past})
    ages = [np.array([(now - e[2]) / DAY_US for e in past if e[1] == i]) for i in ids]
    n = len(ids)
    out: dict = {
        "as_of_ts": _ts([now] * n), "item_id": ids, "item_release_ts": _ts([now - int(a.max() * DAY_US) for a in ages]),
        "item_release_known": [False] * n, "item_age_days": [float(a.max()) for a in ages], "item_available": [True] * n,
        "item_sales_all": [len(a) for a in ages], "item_users_28d": [int((a <= 28).sum()) for a in ages],
    }  # fmt: skip
    for window, seconds in c.WINDOWS.items():
        out[c.item_sales(window)] = [int((a * 86400 <= seconds).sum()) for a in ages]
    for half_life, seconds in c.ITEM_HALF_LIVES.items():
        out[c.item_decayed(half_life)] = [float((0.5 ** (a * 86400 / seconds)).sum()) for a in ages]
    for name in ("item_trend_1d_7d", "item_trend_7d_28d", "item_acceleration", "item_daily_strength", "item_daily_phase",
                 "item_weekly_strength", "item_weekly_phase"):  # fmt: skip
        out[name] = [0.0] * n
    out["item_idle_days"] = [float(a.min()) for a in ages]
    out["item_days_since_peak"] = out["item_repurchase_days"] = pa.nulls(n, pa.float64())
    out["item_life_stage"] = ["evergreen"] * n
    for name, width, buckets in (("item_hours", 1 / 24, c.HOUR_BUCKETS), ("item_days", 1.0, c.DAY_BUCKETS)):
        series = [np.bincount((a / width).astype(int)[a / width < buckets], minlength=buckets)[::-1] for a in ages]
        out[name] = pa.array([s.tolist() for s in series], pa.list_(pa.int32()))
    return pa.table(out)


def _neighbors(past: list[tuple[str, str, int]], now: int) -> pa.Table:
    pairs: dict[tuple[str, str], float] = {}
    last: dict[str, str] = {}
    for user, item, _ in past:
        before = last.get(user)
        if before not in (None, item):
            pairs[before, item] = pairs.get((before, item), 0.0) + 1.0  # type: ignore[index]
        last[user] = item
    most = max(pairs.values(), default=1.0)
    rows = sorted(pairs)
    return pa.table({
        "as_of_ts": _ts([now] * len(rows)), "item_id": [r[0] for r in rows], "neighbor_id": [r[1] for r in rows],
        "neighbor_weight": [pairs[r] / most for r in rows], "neighbor_rank": pa.array([1] * len(rows), pa.int32()),
    })  # fmt: skip


def small_bundle(folder: Path, weights: bytes = b"weights") -> Path:
    """A folder with the shape of a model bundle, which no one loads."""
    (folder / "networks").mkdir(parents=True)
    (folder / "manifest.json").write_text('{"width": 48}')
    (folder / "networks" / "encoder.safetensors").write_bytes(weights)
    return folder
