"""Users at a moment as arrays: the last events, the profile, and the items they come back to.

``join_user_tables`` makes from the three user tables the row format that the scorer receives from Spark;
``UserBatch.from_table`` turns such rows into arrays. Training and scoring therefore see the same thing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conf import columns as c
from model.as_of.catalogue import Catalogue
from model.data import event_kind, index_of, micros

_REPEAT_LISTS = {
    "repeat_item_ids": c.ITEM_ID, "repeat_counts": "repeat_count", "repeat_values": "repeat_value",
    "repeat_first_us": "repeat_first_ts", "repeat_last_us": "repeat_last_ts", "repeat_gap_days": "repeat_gap_days",
    **{c.repeat_decayed(h): c.repeat_decayed(h) for h in c.REPEAT_HALF_LIVES},
}  # fmt: skip
_PROFILE_COUNTS = (
    *(c.user_events(w) for w in (*c.WINDOWS, "all")), *(c.user_type_events(t, "28d") for t in c.EVENT_TYPES),
    "user_items_all", "user_sessions_28d", "user_sessions_all", "user_dwell_seconds_28d", "user_depth_items",
    "user_depth_categories", "user_recency_days", "user_tenure_days", "user_cadence_days",
)  # fmt: skip
_HABITS = (("user_hour_habit", 24), ("user_weekday_habit", 7))
#: Width of ``UserBatch.profile``: logged counts, share of repeated items, hour and weekday habit.
PROFILE_WIDTH = len(_PROFILE_COUNTS) + 1 + 31
#: Where each logged count stands in ``UserBatch.profile``.
PROFILE_AT = {name: j for j, name in enumerate((*_PROFILE_COUNTS, "user_repeat_share"))}


def join_user_tables(sequences: pa.Table, profiles: pa.Table, repeats: pa.Table) -> pa.Table:
    """One row per user of ``sequences`` in the scorer's input format, ordered by user_id; all tables at one as_of."""
    order = pc.sort_indices(sequences[c.USER_ID])
    sequences = sequences.take(order)
    users = sequences[c.USER_ID].combine_chunks().cast(pa.string())
    event_us = sequences["event_tss"].combine_chunks()
    out = {name: sequences[name] for name in (c.USER_ID, "item_ids", "event_types")}
    out["event_us"] = pa.ListArray.from_arrays(event_us.offsets, pa.array(micros(event_us.values)))
    out |= {name: sequences[name] for name in ("event_values", "session_starts", "sequence_events")}
    profiles = profiles.take(pc.index_in(users, value_set=profiles[c.USER_ID].combine_chunks().cast(pa.string())))
    out |= {name: profiles[name] for name in profiles.column_names if name not in (c.AS_OF_TS, c.USER_ID)}
    owner = index_of(repeats[c.USER_ID], users)
    decayed = repeats[c.repeat_decayed("90d")].to_numpy()
    item_rank = pc.rank(repeats[c.ITEM_ID].combine_chunks(), tiebreaker="dense").to_numpy() if len(repeats) else owner
    order_rows = np.lexsort((item_rank, -decayed, owner))
    order_rows = order_rows[owner[order_rows] >= 0]
    offsets = pa.array(np.searchsorted(owner[order_rows], np.arange(len(users) + 1)), pa.int32())
    rows = repeats.take(pa.array(order_rows))
    for name, source in _REPEAT_LISTS.items():
        column = rows[source].combine_chunks()
        column = pa.array(micros(column)) if pa.types.is_timestamp(column.type) else column
        out[name] = pa.ListArray.from_arrays(offsets, column)
    return pa.table(out)


@dataclass(frozen=True)
class Repeats:
    """(user, item) pairs, grouped by user row, best first; all arrays aligned."""

    user: np.ndarray
    item: np.ndarray
    count: np.ndarray
    value: np.ndarray
    last_us: np.ndarray
    gap_days: np.ndarray
    """Median gap; NaN with fewer than two moments."""
    decayed: np.ndarray
    """(pairs, half-lives of conf.columns.REPEAT_HALF_LIVES) float32."""


@dataclass(frozen=True)
class UserBatch:
    """B users. Sequences are (B, L), oldest first, padded at the end: item -1 and time 0 behind ``length``."""

    user_ids: pa.Array
    item: np.ndarray
    kind: np.ndarray
    us: np.ndarray
    value: np.ndarray
    start: np.ndarray
    length: np.ndarray
    events_all: np.ndarray
    profile: np.ndarray
    """(B, PROFILE_WIDTH) float32, zeros for a user without history."""
    long_code: np.ndarray
    """(B, C) code of facet 0 (category) in the catalogue, -1 padded, with ``long_weight`` aligned."""
    long_weight: np.ndarray
    short_code: np.ndarray
    short_weight: np.ndarray
    repeats: Repeats

    def __len__(self) -> int:
        return len(self.length)

    @classmethod
    def from_table(cls, table: pa.Table, catalogue: Catalogue, length: int, categories: int = 10) -> UserBatch:
        """Arrays of rows in the scorer's input format; ``length``: events kept of each sequence (the newest)."""
        table = table.combine_chunks()
        seq = {n: _lists(table[n]) for n in ("item_ids", "event_types", "event_us", "event_values", "session_starts")}
        offsets = seq["item_ids"][1]
        item = index_of(seq["item_ids"][0], catalogue.item_ids)
        counts = np.diff(offsets)
        kept = np.minimum(counts, length)
        row, place = _places(kept)
        source = np.repeat(offsets[1:] - kept, kept) + place
        width = max(int(kept.max(initial=0)), 1)

        def pad(values: np.ndarray, fill: int = 0) -> np.ndarray:
            out = np.full((len(kept), width), fill, values.dtype)
            out[row, place] = values[source]
            return out

        values = pc.fill_null(seq["event_values"][0].cast(pa.float32()), 0.0).to_numpy(zero_copy_only=False)
        starts = pc.fill_null(seq["session_starts"][0], False).to_numpy(zero_copy_only=False)
        long_code, long_weight = _categories(table, "long", catalogue, categories)
        short_code, short_weight = _categories(table, "short", catalogue, categories)
        return cls(
            user_ids=table[c.USER_ID].combine_chunks(),
            item=pad(item, -1),
            kind=pad(event_kind(seq["event_types"][0])),
            us=pad(seq["event_us"][0].to_numpy(zero_copy_only=False).astype(np.int64)),
            value=pad(values),
            start=pad(starts),
            length=kept.astype(np.int64),
            events_all=pc.fill_null(table["sequence_events"], 0).to_numpy().astype(np.int64),
            profile=_profile(table),
            long_code=long_code,
            long_weight=long_weight,
            short_code=short_code,
            short_weight=short_weight,
            repeats=_repeats(table, catalogue),
        )

    def take(self, rows: np.ndarray) -> UserBatch:
        """The users at these rows, which must rise; the width of the sequences is kept."""
        place = np.full(len(self), -1)
        place[rows] = np.arange(len(rows))
        keep = np.flatnonzero(place[self.repeats.user] >= 0)
        pairs = {k: v[keep] for k, v in vars(self.repeats).items()} | {"user": place[self.repeats.user[keep]]}
        plain = {k: v[rows] for k, v in vars(self).items() if k not in ("user_ids", "repeats")}
        return UserBatch(user_ids=self.user_ids.take(pa.array(rows)), repeats=Repeats(**pairs), **plain)


def _lists(column: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    """Values and offsets of a list column; a NULL list counts as empty."""
    array = column.combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    return array.flatten(), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _places(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and place within the row of each value of lists with these lengths."""
    row = np.repeat(np.arange(len(counts)), counts)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)


def _categories(table: pa.Table, term: str, catalogue: Catalogue, most: int) -> tuple[np.ndarray, np.ndarray]:
    names, offsets = _lists(table[f"user_{term}_categories"])
    weights, _ = _lists(table[f"user_{term}_weights"])
    code = index_of(names, catalogue.categories)
    row, place = _places(np.diff(offsets))
    keep = place < most
    out = np.full((len(table), most), -1, np.int32), np.zeros((len(table), most), np.float32)
    out[0][row[keep], place[keep]] = code[keep]
    out[1][row[keep], place[keep]] = pc.fill_null(weights, 0.0).to_numpy(zero_copy_only=False)[keep]
    return out


def _profile(table: pa.Table) -> np.ndarray:
    counts = [pc.fill_null(table[n].cast(pa.float64()), 0.0).to_numpy() for n in _PROFILE_COUNTS]
    at = _PROFILE_COUNTS.index
    repeated = 1 - counts[at("user_items_all")] / np.maximum(counts[at(c.user_events("all"))], 1)
    parts = [*(np.log1p(np.maximum(x, 0)) for x in counts), np.where(counts[at(c.user_events("all"))] > 0, repeated, 0)]
    for name, size in _HABITS:
        flat, offsets = _lists(table[name])
        habit = np.zeros((len(table), size))
        row, place = _places(np.diff(offsets))
        habit[row, place] = pc.fill_null(flat, 0.0).to_numpy(zero_copy_only=False)
        parts += list(habit.T * 4)
    return np.stack(parts, axis=1).astype(np.float32)


def _repeats(table: pa.Table, catalogue: Catalogue) -> Repeats:
    ids, offsets = _lists(table["repeat_item_ids"])
    item = index_of(ids, catalogue.item_ids)
    user, _ = _places(np.diff(offsets))
    keep = item >= 0

    def flat(name: str, null: float = 0.0) -> np.ndarray:
        column = _lists(table[name])[0].cast(pa.float64(), safe=False)
        return pc.fill_null(column, null).to_numpy(zero_copy_only=False)[keep].astype(np.float32)

    last = _lists(table["repeat_last_us"])[0].to_numpy(zero_copy_only=False)[keep].astype(np.int64)
    return Repeats(
        user=user[keep].astype(np.int64),
        item=item[keep].astype(np.int64),
        count=flat("repeat_counts"),
        value=flat("repeat_values"),
        last_us=last,
        gap_days=flat("repeat_gap_days", np.nan),
        decayed=np.stack([flat(c.repeat_decayed(h)) for h in c.REPEAT_HALF_LIVES], axis=1),
    )
