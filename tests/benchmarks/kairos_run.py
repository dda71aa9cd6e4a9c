"""Kairos in this process: the jobs make tables, each in a process of its own; the trainer and the scorer run here."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from protocol import DEPTH, Lists

from conf.load import from_tree, load
from conf.settings import Settings
from features.anchors import anchors_before
from features.windows import to_micros
from model import predict, train
from model.as_of.users import join_user_tables
from model.data import read_table
from model.machine.distributed import World
from model.spec import TRAIN_TABLES, PredictSpec, TableRef, TrainSpec
from model.versions import checkpoint
from model.versions.bundle_hash import bundle_hash

ROOT = Path(__file__).resolve().parents[2]
END = "2100-01-01T00:00:00Z"


def build_tables(folder: Path, settings: Path, cutoff: pd.Timestamp) -> None:
    """Run the jobs that make the tables at a cutoff, where they have not run yet; ``folder`` holds the warehouse."""
    if not (folder / "warehouse" / "events").is_dir():
        _job("ingest", settings, END)
    done = folder / f"features-{cutoff:%Y%m%d%H%M}"
    if not done.exists():
        _job("build_features", settings, f"{cutoff:%Y-%m-%dT%H:%M:%SZ}")
        done.touch()


def _job(name: str, settings: Path, as_of: str) -> None:
    command = [sys.executable, "-m", f"jobs.{name}", "--settings", str(settings), "--as-of", as_of]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def settings_of(path: Path, over: dict[str, dict[str, Any]]) -> Settings:
    """The settings of a file, with other values in some of their groups."""
    tree = load(path, {}).resolved()
    return from_tree(tree | {group: tree[group] | values for group, values in over.items()})


@dataclass(frozen=True)
class Fitted:
    """A model on disk."""

    path: Path
    digest: str


def fit(folder: Path, chosen: Settings, cutoff: pd.Timestamp, first: pd.Timestamp, name: str) -> Fitted:
    """Train in this process at a cutoff, unless the same code did; ``first``: the first event of the log, which anchors come after."""
    as_of = cutoff.tz_localize("UTC").to_pydatetime()
    anchors = sorted(to_micros(anchor) for anchor in anchors_before(as_of, chosen))
    spec = TrainSpec(
        tables=_tables(folder), as_of_us=to_micros(as_of), anchors_us=tuple(a for a in anchors if a > _us(first)),
        horizon_us=int(chosen.horizon.total_seconds() * 1e6), repeat_consumption=chosen.repeat_consumption,
        settings=chosen.resolved(), output=str(folder / f"model-{name}-{chosen.fingerprint()[:8]}-{_code()}"),
    )  # fmt: skip
    path = Path(spec.output)
    made = (path / checkpoint.MANIFEST).exists()
    return Fitted(path, bundle_hash(path) if made else checkpoint.save(train.train(spec, World(0, 1)), spec))


def _code() -> str:
    """Of all that a model is made by, so that a model of other code is never judged in its name."""
    parts = [path.read_bytes() for folder in ("conf", "features", "model") for path in sorted((ROOT / folder).rglob("*.py"))]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:8]


def scorer(
    folder: Path, model: Fitted, cutoff: pd.Timestamp, repeat: bool, asked: pd.Timestamp | None = None, top_k: int = DEPTH, explore: int = 0
) -> predict.Scorer:
    """A model made ready for a cutoff, at or after the one it was trained at; ``asked``: for a later moment, knowing no more."""
    told = PredictSpec(
        tables=_tables(folder), as_of_us=_us(cutoff), asked_us=None if asked is None else _us(asked),
        repeat_consumption=repeat, top_k=top_k, explore_places=explore,
    )  # fmt: skip
    ready = folder / f"prepared-{model.path.name.removeprefix('model-')}"
    return predict.Scorer(predict.prepare(model.path, told, ready, model.digest))


def lists_of(made: predict.Scorer, folder: Path, cutoff: pd.Timestamp, users: np.ndarray) -> Lists:
    """The lists of these users, of those who are known at the cutoff."""
    lists: Lists = {}
    scored = made.score(user_rows(folder, cutoff, users))
    for user, item in zip(scored["user_id"].to_pylist(), scored["item_id"].to_pylist(), strict=True):
        lists.setdefault(user, []).append(item)
    return lists


def user_rows(folder: Path, cutoff: pd.Timestamp, users: np.ndarray) -> pa.Table:
    """What the scorer reads of these users."""
    spec = PredictSpec(tables=_tables(folder), as_of_us=_us(cutoff))
    names = ("user_sequences", "user_profiles", "user_item_repeats")
    rows = join_user_tables(*(read_table(spec, name, spec.as_of_us) for name in names))
    return rows.filter(pc.is_in(rows["user_id"].cast(pa.string()), value_set=pa.array(users.astype(str))))


def _tables(folder: Path) -> dict[str, TableRef]:
    return {name: TableRef(path=str(folder / "warehouse" / name)) for name in TRAIN_TABLES}


def _us(moment: pd.Timestamp) -> int:
    return to_micros(moment.tz_localize("UTC").to_pydatetime())
