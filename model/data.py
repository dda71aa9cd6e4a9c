"""Reads contract tables without a JVM: Delta at a pinned version, or parquet in tests, always as of a moment.

Every read states its moment. Feature tables are read one ``as_of_ts`` partition at a time; events by the time law:
``event_ts < as_of AND available_ts <= as_of``, ordered by (user, event_ts, event_id).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from conf import columns as c
from model.spec import TableRef, TablesSpec

_UTC_US = pa.timestamp("us", tz="UTC")


class DataError(Exception):
    """A table lacks what the model needs; the message names table, moment and the next command."""


def dataset(ref: TableRef) -> ds.Dataset:
    """Open a table as a pyarrow dataset at its pinned version."""
    if ref.format == "parquet":
        return ds.dataset(ref.path, format="parquet")
    from deltalake import DeltaTable

    return DeltaTable(ref.path, version=ref.version, storage_options=ref.storage_options).to_pyarrow_dataset()


def moment(us: int) -> pa.Scalar:
    """A UTC epoch-microseconds moment as an Arrow scalar."""
    return pa.scalar(us, pa.int64()).cast(_UTC_US)


def micros(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """A timestamp column as int64 microseconds; NULL is -1."""
    return pc.fill_null(column.cast(_UTC_US).cast(pa.int64()), -1).to_numpy(zero_copy_only=False)


def read_table(
    spec: TablesSpec, name: str, as_of_us: int | None = None, columns: list[str] | None = None
) -> pa.Table:
    """Read a table, restricted to one ``as_of_ts`` partition where a moment is given."""
    where = None if as_of_us is None else ds.field(c.AS_OF_TS) == moment(as_of_us)
    return dataset(spec.table(name)).to_table(columns=columns, filter=where)


def require_partition(spec: TablesSpec, name: str, as_of_us: int, columns: list[str] | None = None) -> pa.Table:
    """Read one partition that must hold rows. Raises DataError if it is empty."""
    table = read_table(spec, name, as_of_us, columns)
    if not table.num_rows:
        raise DataError(
            f"table {name} ({spec.table(name).path}) has no rows at as_of {moment(as_of_us).as_py().isoformat()}; "
            "build them first: jobs/build_features.py --as-of …"
        )
    return table


def newest_partition(spec: TablesSpec, name: str, as_of_us: int) -> pa.Table:
    """Read the newest partition at or before the moment; without rows if there is none."""
    source = dataset(spec.table(name))
    visible = ds.field(c.AS_OF_TS) <= moment(as_of_us)
    newest = pc.max(source.to_table(columns=[c.AS_OF_TS], filter=visible)[c.AS_OF_TS])
    return source.to_table(filter=ds.field(c.AS_OF_TS) == (newest if newest.is_valid else moment(as_of_us)))


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
        keep = (self.us < moment_us) & (self.available_us <= moment_us)
        rows = {k: getattr(self, k)[keep] for k in ("user", "item", "us", "kind", "value", "available_us")}
        return Events(users=self.users, **rows)


def read_events(spec: TablesSpec, as_of_us: int, item_ids: pa.Array) -> Events:
    """Read the events visible at a moment."""
    now = moment(as_of_us)
    visible = (ds.field(c.EVENT_TS) < now) & (ds.field(c.AVAILABLE_TS) <= now)
    names = [c.EVENT_ID, c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.EVENT_TS, c.AVAILABLE_TS, c.VALUE]
    table = dataset(spec.table("events")).to_table(columns=names, filter=visible)
    users = pc.unique(table[c.USER_ID].combine_chunks())
    users = users.take(pc.sort_indices(users))
    user = index_of(table[c.USER_ID], users)
    us = micros(table[c.EVENT_TS])
    order = np.lexsort((us, user))
    tied = (np.diff(us[order]) == 0) & (np.diff(user[order]) == 0)
    if tied.any():
        order = _break_ties(order, tied, table[c.EVENT_ID])
    return Events(
        users=users,
        user=user[order],
        item=index_of(table[c.ITEM_ID], item_ids)[order],
        us=us[order],
        kind=event_kind(table[c.EVENT_TYPE])[order],
        value=pc.fill_null(table[c.VALUE].cast(pa.float32()), 0.0).to_numpy(zero_copy_only=False)[order],
        available_us=micros(table[c.AVAILABLE_TS])[order],
    )


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


def index_of(values: pa.ChunkedArray | pa.Array, value_set: pa.Array) -> np.ndarray:
    """Position of each value in ``value_set`` as int32; -1 where absent."""
    found = pc.index_in(values.cast(pa.string()), value_set=value_set)
    return pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int32)


def event_kind(types: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Event types as int8 positions in ``conf.columns.EVENT_TYPES``; an unknown one counts as ``other``."""
    at = index_of(types, pa.array(c.EVENT_TYPES))
    return np.where(at < 0, len(c.EVENT_TYPES) - 1, at).astype(np.int8)
