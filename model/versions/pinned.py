"""The version that the newest run used, remembered on disk beside its copy: what is left when the registry does not answer."""

from __future__ import annotations

import json
import os
from pathlib import Path

from model.versions.registry import ModelVersion

_FIELDS = ("version", "run_id", "source", "sha256", "schema", "trained_as_of_us")


def remember(cache: Path, version: ModelVersion, as_of_us: int) -> None:
    """Note that a run at as_of used this version; a run of the past changes nothing."""
    known = _read(cache, version.name)
    if known is not None and known["as_of_us"] > as_of_us:
        return
    cache.mkdir(parents=True, exist_ok=True)
    note = {name: getattr(version, name) for name in _FIELDS} | {"as_of_us": as_of_us}
    beside = cache / f".{version.name}.json.{os.getpid()}"
    beside.write_text(json.dumps(note, sort_keys=True), encoding="utf-8")
    os.replace(beside, _file(cache, version.name))


def recall(cache: Path, tracking_uri: str, name: str, as_of_us: int) -> ModelVersion | None:
    """The version noted last, for a run at as_of; None where there is none, or only one of a later run."""
    note = _read(cache, name)
    if note is None or note["as_of_us"] > as_of_us:
        return None
    return ModelVersion(tracking_uri=tracking_uri, name=name, tags={}, **{field: note[field] for field in _FIELDS})


def _file(cache: Path, name: str) -> Path:
    return cache / f"{name}.json"


def _read(cache: Path, name: str) -> dict | None:
    try:
        note = json.loads(_file(cache, name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) and {*_FIELDS, "as_of_us"} <= set(note) else None
