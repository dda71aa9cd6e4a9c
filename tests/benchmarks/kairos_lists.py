"""Kairos on the logs of the benchmark: the jobs make the tables, the trainer trains, the scorer makes the lists.

Settings are the defaults; a log only says where its columns are, what may repeat and how long the horizon is. Tables are made
once a (log, cutoff) under the folder that KAIROS_BENCHMARKS names (default: warehouse/benchmarks/kairos).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from protocol import DEPTH, Choice, Lists, Log, MissingError, Recommender, Split, shared
from results import KAIROS

ROOT = Path(__file__).resolve().parents[2]
END = "2100-01-01T00:00:00Z"
CATALOGUES = {
    "movietweetings_100k": {"title": "title", "category": "category", "release_ts": "release_time"},
    "ifdb_played": {"title": "title", "category": "category", "release_ts": "release_time"},
    "memetracker_blogs": {"release_ts": "release_time"},
}


def make(split: Split, choice: Choice) -> Lists:
    """Lists of one cutoff. Raises MissingError for a log whose columns are not described here."""
    folder = Path(os.environ.get("KAIROS_BENCHMARKS", ROOT / "warehouse/benchmarks/kairos")) / split.log.name
    settings = _settings(split.log, folder)
    if not (folder / "warehouse" / "events").is_dir():
        _job("ingest", settings, END)
    moment = f"{split.cutoff:%Y-%m-%dT%H:%M:%SZ}"
    done = folder / f"features-{split.cutoff:%Y%m%d%H%M}"
    if not done.exists():
        _job("build_features", settings, moment)
        done.touch()
    return _score(split, folder, settings, int(choice["seed"]))  # type: ignore[call-overload]


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


def _score(split: Split, folder: Path, settings: Path, seed: int) -> Lists:
    from conf.settings import from_tree, load
    from features.anchors import anchors_before
    from features.windows import to_micros
    from model import checkpoint, predict, train
    from model.data import read_table
    from model.distributed import World
    from model.spec import TRAIN_TABLES, PredictSpec, TableRef, TrainSpec
    from model.users import join_user_tables

    tree = load(settings, {}).resolved()
    tree["training"]["seed"] = seed
    chosen = from_tree(tree)
    as_of = split.cutoff.tz_localize("UTC").to_pydatetime()
    tables = {name: TableRef(path=str(folder / "warehouse" / name)) for name in TRAIN_TABLES}
    first = to_micros(split.past["event_time"].min().tz_localize("UTC").to_pydatetime())
    anchors = sorted(to_micros(anchor) for anchor in anchors_before(as_of, chosen))
    spec = TrainSpec(
        tables=tables, as_of_us=to_micros(as_of), anchors_us=tuple(a for a in anchors if a > first),
        horizon_us=int(chosen.horizon.total_seconds() * 1e6), repeat_consumption=chosen.repeat_consumption,
        settings=chosen.resolved(), output=str(folder / f"model-{split.cutoff:%Y%m%d}-{seed}"),
    )  # fmt: skip
    digest = checkpoint.save(train.train(spec, World(0, 1)), spec)
    told = PredictSpec(tables=tables, as_of_us=spec.as_of_us, repeat_consumption=chosen.repeat_consumption, top_k=DEPTH)
    ready = predict.prepare(spec.output, told, folder / f"prepared-{split.cutoff:%Y%m%d}-{seed}", digest)
    names = ("user_sequences", "user_profiles", "user_item_repeats")
    users = join_user_tables(*(read_table(told, name, spec.as_of_us) for name in names))
    judged = users.filter(pc.is_in(users["user_id"].cast(pa.string()), value_set=pa.array(split.users.astype(str))))
    lists: dict[str, list[str]] = {}
    scored = predict.Scorer(ready).score(judged)
    for user, item in zip(scored["user_id"].to_pylist(), scored["item_id"].to_pylist(), strict=True):
        lists.setdefault(user, []).append(item)
    return lists


RECOMMENDERS = [Recommender(KAIROS, make, lambda log: [{}] if log.name != "ml_100k" else [], seeded=True)]
