"""The visible events as columns, in memory where they are few and mapped from files where they are many.

By the time law, ``event_ts < as_of AND available_ts <= as_of``, ordered by (user, event_ts, event_id). A large table is streamed
twice, and ordered part by part (model/as_of/event_store.py); whatever goes over all rows goes block by block, so that the memory of a
training does not grow with them: mapped pages are the operating system's to drop.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from conf import columns as c
from model.data import dataset, event_kind, index_of, micros, moment
from model.spec import TablesSpec

#: Rows that are looked at together.
BLOCK = 1_000_000
#: Columns of ``Events`` with a value for each event.
COLUMNS = {"user": np.int32, "item": np.int32, "us": np.int64, "kind": np.int8, "value": np.float32, "available_us": np.int64}
READ = [c.EVENT_ID, c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.EVENT_TS, c.AVAILABLE_TS, c.VALUE]


@dataclass(frozen=True)
class Events:
    """Visible events, ordered by (user, event_ts, event_id). ``item`` indexes the catalogue; -1: not in it."""

    users: pa.Array
    """User ids, sorted; ``user`` indexes it."""
    user: np.ndarray
    item: np.ndarray
    us: np.ndarray
    kind: np.ndarray
    """Index into ``conf.columns.EVENT_TYPES``."""
    value: np.ndarray
    """NULL is 0."""
    available_us: np.ndarray

    def seen_at(self, moment_us: int) -> Events:
        """The events that a run at this moment would have seen."""
        # Asked twice of each block, because a mark for every event would grow with the log.
        kept = sum(int(np.count_nonzero(self._seen(part, moment_us))) for part in self.blocks())
        rows = {name: room(kept, kind, self.us) for name, kind in COLUMNS.items()}
        at = 0
        for part in self.blocks():
            chosen = np.flatnonzero(self._seen(part, moment_us))
            for name, into in rows.items():
                into[at : at + len(chosen)] = getattr(self, name)[part][chosen]
            at += len(chosen)
        return Events(users=self.users, **rows)

    def _seen(self, part: slice, moment_us: int) -> np.ndarray:
        return (self.us[part] < moment_us) & (self.available_us[part] <= moment_us)

    def window(self, start_us: int, end_us: int) -> tuple[np.ndarray, np.ndarray]:
        """(user, item) of the events of known items in [start, end)."""
        users, items = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
        for part in self.blocks():
            inside = (self.us[part] >= start_us) & (self.us[part] < end_us) & (self.item[part] >= 0)
            users.append(self.user[part][inside])
            items.append(self.item[part][inside])
        return np.concatenate(users), np.concatenate(items)

    def distinct(self, items: int) -> tuple[np.ndarray, np.ndarray]:
        """(user, item) of all events of known items, each pair once, by user and item; ``items`` there are."""
        known = self.item >= 0
        pairs = np.unique(self.user[known].astype(np.int64) * items + self.item[known])
        return pairs // items, pairs % items

    def counted(self, name: str, most: int, where: Callable[[slice], np.ndarray] | None = None) -> np.ndarray:
        """How often each number below ``most`` stands in a column, in the rows that ``where`` chooses of a block."""
        counts = np.zeros(most, np.int64)
        for part in self.blocks():
            column = getattr(self, name)[part]
            counts += np.bincount(column if where is None else column[where(part)], minlength=most)[:most]
        return counts

    def blocks(self) -> Iterator[slice]:
        """All rows, some at a time."""
        for at in range(0, len(self.us), BLOCK):
            yield slice(at, min(at + BLOCK, len(self.us)))

    def whole_users(self) -> Iterator[slice]:
        """The same, where no user is in two of them."""
        at = 0
        while at < len(self.us):
            last = self.user[min(at + BLOCK, len(self.us)) - 1]
            start, at = at, int(np.searchsorted(self.user, last, "right"))
            yield slice(start, at)


def room(rows: int, kind: type, like: np.ndarray) -> np.ndarray:
    """An array to fill; a mapped one where ``like`` is, in a file beside it that goes with the array."""
    if not isinstance(like, np.memmap) or not rows:
        return np.empty(rows, kind)
    folder = Path(like.filename).parent if like.filename else None
    with tempfile.TemporaryFile(dir=folder if folder and folder.is_dir() else None) as file:
        return np.memmap(file, kind, "w+", shape=(rows,))


def visible(as_of_us: int) -> ds.Expression:
    """What a run at this moment may know of."""
    now = moment(as_of_us)
    return (ds.field(c.EVENT_TS) < now) & (ds.field(c.AVAILABLE_TS) <= now)


def read_events(spec: TablesSpec, as_of_us: int, item_ids: pa.Array) -> Events:
    """Read the events visible at a moment into memory."""
    table = dataset(spec.table("events")).to_table(columns=READ, filter=visible(as_of_us))
    users = pc.unique(table[c.USER_ID].combine_chunks())
    users = users.take(pc.sort_indices(users))
    return Events(users=users, **arranged(table, users, item_ids))


def arranged(table: pa.Table, users: pa.Array, item_ids: pa.Array) -> dict[str, np.ndarray]:
    """The columns of some rows, ordered."""
    user = index_of(table[c.USER_ID], users)
    us = micros(table[c.EVENT_TS])
    order = np.lexsort((us, user))
    tied = (np.diff(us[order]) == 0) & (np.diff(user[order]) == 0)
    if tied.any():
        order = _break_ties(order, tied, table[c.EVENT_ID])
    return {
        "user": user[order],
        "item": index_of(table[c.ITEM_ID], item_ids)[order],
        "us": us[order],
        "kind": event_kind(table[c.EVENT_TYPE])[order],
        "value": pc.fill_null(table[c.VALUE].cast(pa.float32()), 0.0).to_numpy(zero_copy_only=False)[order],
        "available_us": micros(table[c.AVAILABLE_TS])[order],
    }


def _break_ties(order: np.ndarray, tied: np.ndarray, event_ids: pa.ChunkedArray) -> np.ndarray:
    """Order events of one user at one moment by event_id; only those are compared as strings."""
    group = np.concatenate([[0], np.cumsum(~tied)])
    member = np.zeros(len(order), bool)
    member[1:] |= tied
    member[:-1] |= tied
    at = np.flatnonzero(member)
    ids = event_ids.take(pa.array(order[at]))
    rank = pc.rank(ids.combine_chunks(), tiebreaker="dense").to_numpy()
    order = order.copy()
    order[at] = order[at][np.lexsort((rank, group[at]))]
    return order
