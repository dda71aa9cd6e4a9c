"""A moment on disk, for the scorers: computed once on the driver, mapped by every worker.

Arrays are ``.npy`` files without objects, mapped copy-on-write, so that workers of one machine share the pages.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from conf import columns as c
from model.as_of.audience import Audience, audience, half_lives, stored_histories
from model.as_of.catalogue import Catalogue, build_catalogue
from model.as_of.ease import Ease
from model.as_of.item_state import COLUMNS, ItemState, build_item_state
from model.as_of.neighbors import Neighbors, build_neighbors
from model.data import index_of, newest_partition, read_table, require_partition
from model.layers.item_temporal import ItemTable
from model.machine.ahead import ahead
from model.slate.candidates import Moment
from model.slate.slate import PINNED
from model.spec import PredictSpec
from model.versions import checkpoint
from model.versions.checkpoint import Bundle

_MODEL = "model"


@dataclass(frozen=True)
class Prepared:
    """What a scorer works with."""

    bundle: Bundle
    moment: Moment
    table: ItemTable
    repeat: bool
    top_k: int
    category_cap: int | None
    pin_places: int
    explore_places: int


def prepare(model_dir: str | Path, spec: PredictSpec, out_dir: str | Path, digest: str | None = None) -> Path:
    """Compute the moment's item vectors, popularity and shared lists, and write them with the model to ``out_dir``.

    Raises CheckpointError for a bad model, DataError where ``item_temporal`` has no partition at as_of.
    """
    bundle = checkpoint.load(model_dir, digest)
    out = Path(out_dir)
    (out / _MODEL).mkdir(parents=True, exist_ok=True)
    for name in (checkpoint.CARD, checkpoint.WEIGHTS, checkpoint.VOCABULARY, checkpoint.HISTORY, checkpoint.MANIFEST):
        shutil.copyfile(Path(model_dir) / name, out / _MODEL / name)
    temporal = require_partition(spec, "item_temporal", spec.as_of_us, list(COLUMNS))
    catalogue = build_catalogue(read_table(spec, "items"), temporal[c.ITEM_ID].combine_chunks(), bundle.facet_names)
    now_us = spec.as_of_us if spec.asked_us is None else spec.asked_us
    state = build_item_state(temporal, catalogue, now_us)
    neighbors = build_neighbors(newest_partition(spec, "item_neighbors", spec.as_of_us), catalogue)
    table = _table(bundle, catalogue)
    length = bundle.settings.features.sequence_length
    everyone = ahead(stored_histories(spec, catalogue.item_ids, length))  # read by a thread while the last block is added up
    lately = audience(_basis(bundle, catalogue), everyone, spec.as_of_us, half_lives(bundle.settings.horizon))
    ease = bundle.ease.moved(index_of(bundle.items, catalogue.item_ids), len(catalogue))
    moment = Moment.prepare(bundle.encoder.eval(), table, state, neighbors, catalogue, lately, ease, bundle.settings)
    arrays = {
        "facet_code": catalogue.facet_code, "facet_bucket": catalogue.facet_bucket, "log_price": catalogue.log_price,
        "category_bucket": catalogue.category_bucket, "release_us": catalogue.release_us,
        "available": state.available, "features": state.features, "sales": state.sales,
        "neighbor_offsets": neighbors.offsets, "neighbor_item": neighbors.item, "neighbor_weight": neighbors.weight,
        "y": moment.y.numpy(), "popularity": moment.popularity.numpy(),
        **{f"audience_{name}": array for name, array in vars(lately).items()},
        "ease_item": ease.item, "ease_other": ease.other, "ease_weight": ease.weight,
        **{f"shared_{name}": items for name, items in moment.shared.items()},
    }  # fmt: skip
    if spec.pinned:
        at = index_of(pa.array(spec.pinned, pa.string()), catalogue.item_ids)
        arrays[f"shared_{PINNED}"] = at[(at >= 0) & state.available[at]].astype(np.int64)
    if catalogue.content is not None:
        arrays["content"] = catalogue.content
    for name, array in arrays.items():
        np.save(out / f"{name}.npy", np.ascontiguousarray(array), allow_pickle=False)
    pq.write_table(pa.table({c.ITEM_ID: catalogue.item_ids, c.TITLE: catalogue.titles}), out / "items.parquet")
    pq.write_table(pa.table({c.CATEGORY: catalogue.categories}), out / "categories.parquet")
    about = {
        "as_of_us": now_us, "repeat": spec.repeat_consumption, "top_k": spec.top_k, "digest": bundle.digest,
        "category_cap": spec.category_cap, "pin_places": spec.pin_places,
        "explore_places": spec.explore_places, "arrays": sorted(arrays),
    }  # fmt: skip
    (out / "prepared.json").write_text(json.dumps(about, sort_keys=True), encoding="utf-8")
    return out


def open_prepared(folder: str | Path, device: torch.device | None = None) -> Prepared:
    """Map what ``prepare`` wrote; the networks compute on ``device`` (None: on the processor)."""
    folder = Path(folder)
    about = json.loads((folder / "prepared.json").read_text(encoding="utf-8"))
    bundle = checkpoint.load(folder / _MODEL, about["digest"])
    # Copy-on-write mapping: read-only on disk, yet torch accepts it without a copy. As plain arrays, which are quicker to index.
    a = {name: np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False).view(np.ndarray) for name in about["arrays"]}
    items, categories = pq.read_table(folder / "items.parquet"), pq.read_table(folder / "categories.parquet")
    catalogue = Catalogue(
        item_ids=items[c.ITEM_ID].combine_chunks(), titles=items[c.TITLE].combine_chunks(), facet_names=bundle.facet_names,
        facet_code=a["facet_code"], facet_bucket=a["facet_bucket"], categories=categories[c.CATEGORY].combine_chunks(),
        category_bucket=a["category_bucket"], log_price=a["log_price"], content=a.get("content"), release_us=a["release_us"],
    )  # fmt: skip
    nothing = np.zeros((0, 0), np.int16)
    state = ItemState(about["as_of_us"], a["available"], a["features"], nothing, nothing, a["sales"])
    neighbors = Neighbors(a["neighbor_offsets"], a["neighbor_item"], a["neighbor_weight"])
    shared = {name.removeprefix("shared_"): a[name] for name in about["arrays"] if name.startswith("shared_")}
    y, popularity = torch.from_numpy(a["y"]), torch.from_numpy(a["popularity"])
    lately = Audience(a["audience_basis"], a["audience_sums"], a["audience_weight"])
    ease = Ease(len(catalogue), a["ease_item"], a["ease_other"], a["ease_weight"])
    moment = Moment(catalogue, state, neighbors, y, popularity, shared, lately, ease)
    table = _table(bundle, catalogue, device)
    if device is not None:
        bundle.encoder.to(device)
        bundle.ranker.to(device)
    told = {name: about[name] for name in ("repeat", "top_k", "category_cap", "pin_places", "explore_places")}
    return Prepared(bundle, moment, table, **told)


def _basis(bundle: Bundle, catalogue: Catalogue) -> np.ndarray:
    """The basis in the catalogue's order; zeros for items that came after training."""
    at = index_of(catalogue.item_ids, bundle.items)
    out = np.zeros((len(catalogue), bundle.basis.shape[1]), np.float32)
    out[at >= 0] = bundle.basis[at[at >= 0]]
    return out


def _table(bundle: Bundle, catalogue: Catalogue, device: torch.device | None = None) -> ItemTable:
    at = index_of(catalogue.item_ids, bundle.items)
    table = ItemTable(catalogue, np.where(at >= 0, at + 1, 0), device)
    table.know(np.where(at >= 0, bundle.sales[np.maximum(at, 0)], 0) if len(bundle.sales) else np.zeros(len(at)))
    return table
