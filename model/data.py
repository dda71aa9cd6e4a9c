"""Reads contract tables without a JVM: Delta at a pinned version, or parquet in tests, always as of a moment.

Every read states its moment. Feature tables are read one ``as_of_ts`` partition at a time; events: ``model/as_of/events.py``.
"""

from __future__ import annotations

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


def index_of(values: pa.ChunkedArray | pa.Array, value_set: pa.Array) -> np.ndarray:
    """Position of each value in ``value_set`` as int32; -1 where absent."""
    found = pc.index_in(values.cast(pa.string()), value_set=value_set)
    return pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int32)


def event_kind(types: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Event types as int8 positions in ``conf.columns.EVENT_TYPES``; an unknown one counts as ``other``."""
    at = index_of(types, pa.array(c.EVENT_TYPES))
    return np.where(at < 0, len(c.EVENT_TYPES) - 1, at).astype(np.int8)
