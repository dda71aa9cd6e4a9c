"""Stores and loads a model: weights as safetensors, the rest as JSON and parquet, nothing that can run code.

A bundle is a folder. ``manifest.json`` is written last and names the SHA-256 of every file: a bundle without it was not
finished and does not load. ``bundle_hash`` over the folder is the digest by which the registry knows it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from conf import columns as c
from conf.load import from_tree
from conf.settings import Settings
from model.as_of.ease import Ease
from model.as_of.item_state import FEATURES
from model.as_of.users import PROFILE_WIDTH
from model.layers.recommend import Ranker
from model.network import Encoder
from model.slate.newcomers import RANKINGS
from model.slate.signals import signal_names
from model.spec import TrainSpec
from model.training.inputs import SPREADS, VOLUME
from model.training.trained import Trained
from model.versions.bundle_hash import BUNDLE_SCHEMA, BundleError, bundle_hash

MANIFEST, CARD, WEIGHTS, VOCABULARY, HISTORY = (
    "manifest.json", "model.json", "model.safetensors", "vocabulary.parquet", "history.json"
)  # fmt: skip
_FILES = frozenset({MANIFEST, CARD, WEIGHTS, VOCABULARY, HISTORY})
_BASIS = "audience.basis"
_EASE = "ease."
_EASE_ARRAYS = ("item", "other", "weight")
_MOST_HEADER = 10 * 2**20
_MOST_JSON = 50 * 2**20


class CheckpointError(Exception):
    """The bundle is damaged, unfinished, of another schema, or not the one asked for."""


@dataclass(frozen=True)
class Bundle:
    """A loaded model. ``items`` are the ids of the vocabulary (row 1 on), ``sales`` how often each was seen, ``basis`` their
    tastes (model/as_of/audience.py), ``ease`` which of them go together (model/as_of/ease.py)."""

    encoder: Encoder
    ranker: Ranker
    settings: Settings
    facet_names: tuple[str, ...]
    items: pa.Array
    sales: np.ndarray
    basis: np.ndarray
    ease: Ease
    newcomers: str
    """Name of the ranking that whoever has no history is shown (model/slate/newcomers.py)."""
    card: dict[str, Any]
    digest: str


def save(trained: Trained, spec: TrainSpec) -> str:
    """Write the bundle into the folder ``spec.output``, which holds nothing else; returns its digest."""
    folder = Path(spec.output)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    known = np.flatnonzero(trained.sales > 0)
    vocabulary = pa.table({c.ITEM_ID: trained.catalogue.item_ids.take(pa.array(known)), "sales": trained.sales[known]})
    weights = {f"encoder.{k}": v for k, v in trained.encoder.state_dict().items()}
    weights |= {f"ranker.{k}": v for k, v in trained.ranker.state_dict().items()}
    weights[_BASIS] = torch.from_numpy(trained.basis[known])
    place = np.full(len(trained.sales), -1)
    place[known] = np.arange(len(known))
    ease = trained.ease.moved(place, len(known))
    weights |= {f"{_EASE}{name}": torch.from_numpy(getattr(ease, name)) for name in _EASE_ARRAYS}
    _put(folder / WEIGHTS, save_tensors({k: v.contiguous() for k, v in weights.items()}))
    sink = pa.BufferOutputStream()
    pq.write_table(vocabulary, sink)
    _put(folder / VOCABULARY, sink.getvalue().to_pybytes())
    content = trained.encoder.items.content
    card = {
        "schema": BUNDLE_SCHEMA,
        "trained_as_of_us": spec.as_of_us,
        "anchors_us": list(trained.anchors_us),
        "horizon_us": spec.horizon_us,
        "repeat_consumption": spec.repeat_consumption,
        "vocabulary_rows": trained.encoder.items.id.num_embeddings,
        "vocabulary_sha256": hashlib.sha256((folder / VOCABULARY).read_bytes()).hexdigest(),
        "content_width": 0 if content is None else content.in_features,
        "facet_names": list(trained.catalogue.facet_names),
        "item_features": len(FEATURES),
        "profile_width": PROFILE_WIDTH,
        "signals": len(signal_names(trained.catalogue.facet_names)),
        "newcomers": trained.newcomers,
        VOLUME: trained.volume,
        SPREADS: trained.inputs,
        "metrics": {k: float(v) for k, v in trained.metrics.items() if not k.startswith("seconds")},
        "settings": trained.settings.resolved(),
    }
    _put(folder / CARD, _json(card))
    _put(folder / HISTORY, _json(trained.history))
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (CARD, WEIGHTS, VOCABULARY, HISTORY)}
    _put(folder / MANIFEST, _json({"schema": BUNDLE_SCHEMA, "files": files}))
    return bundle_hash(folder)


def load(folder: str | Path, digest: str | None = None) -> Bundle:
    """Load a bundle, checking every file against the manifest, and the folder against ``digest`` where given.

    Raises CheckpointError naming what does not fit.
    """
    folder = Path(folder)
    manifest = _parse(_get(folder / MANIFEST, _MOST_JSON), folder / MANIFEST)
    found = _digest(folder)
    if digest is not None and digest != found:
        raise CheckpointError(f"{folder}: expected model {digest}, found {found}: not the registered model")
    _check_schema(manifest, folder / MANIFEST)
    extra = sorted({p.relative_to(folder).as_posix() for p in folder.rglob("*")} - _FILES)
    if extra:
        raise CheckpointError(f"{folder}: {', '.join(extra[:5])} is no file of a bundle: somebody else put it there")
    if set(manifest.get("files", {})) != _FILES - {MANIFEST}:
        raise CheckpointError(f"{folder / MANIFEST}: names other files than a bundle has: {', '.join(sorted(manifest.get('files', {})))[:200]}")
    content = {}
    for name in (CARD, WEIGHTS, VOCABULARY):
        content[name] = _get(folder / name)
        if hashlib.sha256(content[name]).hexdigest() != manifest.get("files", {}).get(name):
            raise CheckpointError(f"{folder / name}: SHA-256 differs from the manifest's: the file is damaged")
    card = _parse(content[CARD], folder / CARD)
    _check_schema(card, folder / CARD)
    return _build(folder, card, content, found)


def _build(folder: Path, card: dict[str, Any], content: dict[str, bytes], digest: str) -> Bundle:
    settings = from_tree(card["settings"], str(folder / CARD))
    facets = tuple(card["facet_names"])
    shapes = {"item_features": len(FEATURES), "profile_width": PROFILE_WIDTH, "signals": len(signal_names(facets))}
    for name, width in shapes.items():
        if card[name] != width:
            raise CheckpointError(f"{folder}: the model has {card[name]} {name}, this version makes {width}: train again")
    if card["newcomers"] not in RANKINGS:
        raise CheckpointError(f"{folder}: the model names the ranking {card['newcomers']!r}; there are {', '.join(RANKINGS)}")
    header = int.from_bytes(content[WEIGHTS][:8], "little")
    if header > _MOST_HEADER:
        raise CheckpointError(f"{folder / WEIGHTS}: header of {header} bytes, at most {_MOST_HEADER} are read")
    encoder = Encoder(card["vocabulary_rows"], card["content_width"], settings.model)
    ranker = Ranker(card["signals"], len(facets), settings.model)
    try:
        weights = load_tensors(content[WEIGHTS])
        for prefix, module in (("encoder.", encoder), ("ranker.", ranker)):
            module.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    except Exception as error:
        raise CheckpointError(f"{folder / WEIGHTS}: weights do not fit the model: {error}") from error
    for name, module in (("encoder", encoder), ("ranker", ranker)):
        if not all(bool(torch.isfinite(p).all()) for p in module.parameters()):
            raise CheckpointError(f"{folder / WEIGHTS}: {name} has weights that are not numbers")
        module.eval()
    try:
        vocabulary = pq.read_table(pa.BufferReader(content[VOCABULARY]))
    except pa.ArrowException as error:
        raise CheckpointError(f"{folder / VOCABULARY}: not a vocabulary: {error}") from error
    basis = weights.get(_BASIS)
    if basis is None or basis.ndim != 2 or len(basis) != len(vocabulary) or not bool(torch.isfinite(basis).all()):
        raise CheckpointError(f"{folder / WEIGHTS}: no basis of tastes for the {len(vocabulary)} items of the vocabulary")
    return Bundle(
        encoder, ranker, settings, facets, vocabulary[c.ITEM_ID].combine_chunks(), vocabulary["sales"].to_numpy(),
        basis.numpy(), _ease(weights, len(vocabulary), folder), card["newcomers"], card, digest
    )


def _ease(weights: dict[str, Tensor], items: int, folder: Path) -> Ease:
    arrays = [weights.get(_EASE + name) for name in _EASE_ARRAYS]
    item, other, weight = (np.zeros(0) if array is None else array.numpy() for array in arrays)
    fits = item.ndim == 1 and other.ndim == 2 and weight.shape == other.shape and len(other) == len(item)
    if not fits or not (_below(item, items) and _below(other, len(item)) and np.isfinite(weight).all()):
        raise CheckpointError(f"{folder / WEIGHTS}: no weights between items (EASE) for the {items} items of the vocabulary")
    return Ease(items, item, other, weight)


def _below(places: np.ndarray, most: int) -> bool:
    return np.issubdtype(places.dtype, np.integer) and bool(((places >= 0) & (places < most)).all())


def _digest(folder: Path) -> str:
    try:
        return bundle_hash(folder)
    except BundleError as error:
        raise CheckpointError(str(error)) from error


def _check_schema(tree: dict[str, Any], path: Path) -> None:
    if tree.get("schema") != BUNDLE_SCHEMA:
        raise CheckpointError(f"{path}: schema {tree.get('schema')!r}, this version reads schema {BUNDLE_SCHEMA}: train again")


def _parse(content: bytes, path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(content)
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
    if not isinstance(tree, dict):
        raise CheckpointError(f"{path}: expected an object, found {type(tree).__name__}")
    return tree


def _json(tree: Any) -> bytes:
    return json.dumps(tree, sort_keys=True, indent=1, default=float).encode()


def _get(path: Path, most: int | None = None) -> bytes:
    if path.is_symlink() or not path.is_file():
        raise CheckpointError(f"{path}: missing, a link, or not a plain file: the bundle is unfinished or was altered")
    if most is not None and path.stat().st_size > most:
        raise CheckpointError(f"{path}: {path.stat().st_size} bytes, at most {most} are read")
    return path.read_bytes()


def _put(path: Path, content: bytes) -> None:
    """Write beside, flush to disk, rename: a reader sees the old file or the new one."""
    beside = path.with_name(path.name + ".part")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
