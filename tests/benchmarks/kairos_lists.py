"""Kairos on the logs of the benchmark: the jobs make the tables, the trainer trains, the scorer makes the lists.

Settings are the defaults; a log only says where its columns are, what may repeat and how long the horizon is. Tables are made
once a (log, cutoff) under the folder that KAIROS_BENCHMARKS names (default: warehouse/benchmarks/kairos).
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from protocol import DEPTH, Choice, Lists, Log, MissingError, Recommender, Split, shared
from results import KAIROS

from conf.settings import Settings, from_tree, load
from features.anchors import anchors_before
from features.windows import to_micros
from model import checkpoint, predict, train
from model.bundle_hash import bundle_hash
from model.data import read_table
from model.distributed import World
from model.spec import TRAIN_TABLES, PredictSpec, TableRef, TrainSpec
from model.users import join_user_tables

ROOT = Path(__file__).resolve().parents[2]
END = "2100-01-01T00:00:00Z"
CATALOGUES = {
    "movietweetings_100k": {"title": "title", "category": "category", "release_ts": "release_time"},
    "ifdb_played": {"title": "title", "category": "category", "release_ts": "release_time"},
    "memetracker_blogs": {"release_ts": "release_time"},
}


def make(split: Split, choice: Choice) -> Lists:
    """Lists of one cutoff. Raises MissingError for a log whose columns are not described here."""
    return _lists(split, _trained(split, int(choice["seed"])), split.users, None)


def make_knowing_visits(split: Split, choice: Choice) -> Lists:
    """Lists of the same model, told when each user comes (to a 24th of the horizon) and nothing that happened until then.

    No recommender could make them: they say what not knowing the time of the visit costs.
    """
    trained, part = _trained(split, int(choice["seed"])), split.log.horizon / 24
    number = ((split.visits - split.cutoff) / part).astype(int)
    lists: Lists = {}
    for k, users in split.visits.groupby(number):
        lists |= _lists(split, trained, users.index.to_numpy(), split.cutoff + (k + 0.5) * part)
    return lists


@dataclass(frozen=True)
class _Trained:
    """A model at a cutoff: its bundle, the tables it reads, where it is prepared."""

    chosen: Settings
    spec: TrainSpec
    digest: str
    scratch: Path


def _trained(split: Split, seed: int) -> _Trained:
    """The model of a cutoff, trained unless it was; the tables first."""
    folder = Path(os.environ.get("KAIROS_BENCHMARKS", ROOT / "warehouse/benchmarks/kairos")) / split.log.name
    settings = _settings(split.log, folder)
    if not (folder / "warehouse" / "events").is_dir():
        _job("ingest", settings, END)
    moment = f"{split.cutoff:%Y-%m-%dT%H:%M:%SZ}"
    done = folder / f"features-{split.cutoff:%Y%m%d%H%M}"
    if not done.exists():
        _job("build_features", settings, moment)
        done.touch()
    tree = load(settings, {}).resolved()
    tree["training"]["seed"] = seed
    chosen = from_tree(tree)
    as_of = split.cutoff.tz_localize("UTC").to_pydatetime()
    first = to_micros(split.past["event_time"].min().tz_localize("UTC").to_pydatetime())
    anchors = sorted(to_micros(anchor) for anchor in anchors_before(as_of, chosen))
    spec = TrainSpec(
        tables={name: TableRef(path=str(folder / "warehouse" / name)) for name in TRAIN_TABLES}, as_of_us=to_micros(as_of),
        anchors_us=tuple(a for a in anchors if a > first), horizon_us=int(chosen.horizon.total_seconds() * 1e6),
        repeat_consumption=chosen.repeat_consumption, settings=chosen.resolved(),
        output=str(folder / f"model-{split.cutoff:%Y%m%d}-{seed}-{chosen.fingerprint()[:8]}-{code_hash()}"),
    )  # fmt: skip
    bundle = Path(spec.output)
    digest = bundle_hash(bundle) if (bundle / checkpoint.MANIFEST).exists() else checkpoint.save(train.train(spec, World(0, 1)), spec)
    return _Trained(chosen, spec, digest, folder / f"prepared-{split.cutoff:%Y%m%d}-{seed}")


def code_hash() -> str:
    """Of all that a model is made by, so that a model of other code is never judged in its name."""
    parts = [path.read_bytes() for folder in ("model", "features", "conf") for path in sorted((ROOT / folder).rglob("*.py"))]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:8]


def _settings(log: Log, folder: Path) -> Path:
    """Write the log's settings file."""
    days = log.horizon / pd.Timedelta("1D")
    tree: dict[str, Any] = {
        "horizon": f"{days:.0f}d", "repeat_consumption": log.repeats, "warehouse": str(folder / "warehouse"),
        "domain": log.name, "ingest": {"max_rejected_share": 1.0},
    }  # fmt: skip
    if log.name == "completejourney":
        tree = {"extends": str(ROOT / "conf" / "completejourney.yaml")} | tree
    elif log.name in CATALOGUES:
        root = shared(log.name)
        columns = {"user_id": "user_id", "item_id": "item_id", "event_ts": "event_time", "value": "value"}
        tree["source"] = {
            "events": {"path": str(root / "events.parquet"), "columns": columns},
            "items": {"path": str(root / "items.parquet"), "columns": {"item_id": "item_id", **CATALOGUES[log.name]}},
        }
    else:
        raise MissingError(f"{log.name}: tests/benchmarks/kairos_lists.py does not say where its columns are")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def _job(name: str, settings: Path, as_of: str) -> None:
    command = [sys.executable, "-m", f"jobs.{name}", "--settings", str(settings), "--as-of", as_of]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def _lists(split: Split, trained: _Trained, wanted: np.ndarray, asked: pd.Timestamp | None) -> Lists:
    spec, chosen = trained.spec, trained.chosen
    told = PredictSpec(
        tables=spec.tables, as_of_us=spec.as_of_us, repeat_consumption=chosen.repeat_consumption, top_k=DEPTH,
        asked_us=None if asked is None else to_micros(asked.tz_localize("UTC").to_pydatetime()),
    )  # fmt: skip
    ready = predict.prepare(spec.output, told, trained.scratch, trained.digest)
    names = ("user_sequences", "user_profiles", "user_item_repeats")
    users = join_user_tables(*(read_table(told, name, spec.as_of_us) for name in names))
    judged = users.filter(pc.is_in(users["user_id"].cast(pa.string()), value_set=pa.array(wanted.astype(str))))
    lists: Lists = {}
    scored = predict.Scorer(ready).score(judged)
    for user, item in zip(scored["user_id"].to_pylist(), scored["item_id"].to_pylist(), strict=True):
        lists.setdefault(user, []).append(item)
    return lists


def _choices(log: Log) -> list[Choice]:
    return [{}] if log.name != "ml_100k" else []


RECOMMENDERS = [
    Recommender(KAIROS, make, _choices, seeded=True),
    Recommender(f"{KAIROS}, visit known", make_knowing_visits, _choices, seeded=True),
]
