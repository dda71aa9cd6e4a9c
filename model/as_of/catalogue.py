"""The catalogue: which items exist, and what does not change with time (facets, price, content, release).

An item's facets are its category, its title where titles are shared (a product type), and shared attributes: the
values by which items resemble each other. Facet values are hashed for embeddings, so an unseen value has a vector too.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conf import columns as c
from model.data import micros

FACET_BUCKETS = 4096
MAX_FACETS = 5
_SHARED = 0.5
"""A column is a facet if its distinct values are at most this share of its non-null rows."""


@dataclass(frozen=True)
class Catalogue:
    """Arrays aligned with ``item_ids``, which is sorted."""

    item_ids: pa.Array
    titles: pa.Array
    facet_names: tuple[str, ...]
    facet_code: np.ndarray
    """(items, facets) int32: equal codes mean equal values; -1: no value."""
    facet_bucket: np.ndarray
    """(items, facets) int32: hash of the value in 1..FACET_BUCKETS-1; 0: no value."""
    categories: pa.Array
    """Category of code j at position j (facet 0)."""
    category_bucket: np.ndarray
    """Bucket of code j at position j."""
    log_price: np.ndarray
    """(items,) float32, 0 where unknown."""
    content: np.ndarray | None
    """(items, E) float32 of unit length, zeros where an item has none; None without embeddings."""
    release_us: np.ndarray

    def __len__(self) -> int:
        return len(self.item_ids)


def build_catalogue(items: pa.Table, seen: pa.Array, facet_names: tuple[str, ...] | None = None) -> Catalogue:
    """The catalogue of the items in ``seen`` (ids visible at a moment), described by the ``items`` table.

    ``facet_names``: those of a trained model; chosen from the data if None.
    """
    ids = pc.unique(seen.cast(pa.string()))
    ids = ids.take(pc.sort_indices(ids))
    at = pc.index_in(ids, value_set=items[c.ITEM_ID].combine_chunks().cast(pa.string()))
    rows = items.take(at)
    columns = _facet_columns(rows)
    if facet_names is None:
        shared = [name for name in columns if name != c.CATEGORY and _is_shared(columns[name])]
        facet_names = (c.CATEGORY, *shared[: MAX_FACETS - 1])
    code = np.full((len(ids), len(facet_names)), -1, np.int32)
    bucket = np.zeros((len(ids), len(facet_names)), np.int32)
    categories, category_bucket = pa.array([], pa.string()), np.zeros(0, np.int32)
    for j, name in enumerate(facet_names):
        column = columns.get(name, pa.nulls(len(ids), pa.string()))
        encoded = column.dictionary_encode()
        codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
        hashes = [1 + zlib.crc32(f"{name}={v}".encode()) % (FACET_BUCKETS - 1) for v in encoded.dictionary.to_pylist()]
        code[:, j] = codes
        bucket[:, j] = np.array([*hashes, 0], np.int32)[codes]
        if j == 0:
            categories, category_bucket = encoded.dictionary, np.array(hashes, np.int32)
    price = pc.fill_null(rows[c.PRICE].cast(pa.float64()), 0.0).to_numpy()
    return Catalogue(
        item_ids=ids,
        titles=rows[c.TITLE].combine_chunks(),
        facet_names=tuple(facet_names),
        facet_code=code,
        facet_bucket=bucket,
        categories=categories,
        category_bucket=category_bucket,
        log_price=np.log1p(np.maximum(price, 0)).astype(np.float32),
        content=_content(rows[c.EMBEDDING].combine_chunks()),
        release_us=micros(rows[c.RELEASE_TS]),
    )


def _facet_columns(rows: pa.Table) -> dict[str, pa.Array]:
    columns = {name: rows[name].combine_chunks().cast(pa.string()) for name in (c.CATEGORY, c.TITLE)}
    maps = rows[c.ATTRIBUTES].combine_chunks()
    if isinstance(maps, pa.ChunkedArray):
        maps = maps.combine_chunks()
    keys, values = maps.keys.cast(pa.string()), maps.items.cast(pa.string())
    owner = np.repeat(np.arange(len(maps)), np.diff(maps.offsets.to_numpy()))
    for key in sorted(k for k in pc.unique(keys).to_pylist() if k is not None):
        mine = np.flatnonzero(pc.equal(keys, key).to_numpy(zero_copy_only=False))
        place = np.full(len(maps), -1)
        place[owner[mine]] = mine
        columns[key] = values.take(pa.array(np.where(place < 0, 0, place), mask=place < 0))
    return columns


def _is_shared(column: pa.Array) -> bool:
    filled = len(column) - column.null_count
    distinct = len(pc.unique(column.drop_null()))
    return filled > 0 and 1 < distinct <= _SHARED * filled


def _content(column: pa.Array) -> np.ndarray | None:
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    if not lengths.any():
        return None
    width = int(lengths.max())
    if not np.isin(lengths, (0, width)).all():
        raise ValueError(f"items.embedding: all vectors must have one length, found {sorted(set(lengths.tolist()))[:5]}")
    out = np.zeros((len(column), width), np.float32)
    out[lengths == width] = column.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-6)
