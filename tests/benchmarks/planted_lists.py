"""Lists in the worlds of ``planted.py``, as [users, DEPTH] places of items (-1: none): of Kairos, and of what knows no time."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import peers
import pyarrow as pa
import torch
import yaml
from kairos_run import build_tables, fit, lists_of, scorer, settings_of, user_rows
from planted import DEPTH, START, World
from protocol import ITEM, TIME, USER, Lists, Log, Split

from conf.settings import Training as defaults
from model.as_of.users import UserBatch
from model.predict import Scorer
from model.slate.retrieval import top_of_catalogue
from model.slate.slate import seen_pairs

DAY = pd.Timedelta("1D")


def ids(letter: str, numbers: np.ndarray) -> np.ndarray:
    """Ids of users ("u") or items ("i"), in the order of their numbers."""
    return np.array([f"{letter}{number:05d}" for number in numbers])


def moment(days: np.ndarray | float) -> Any:
    """Days since START as timestamps, to the microsecond."""
    return START + pd.to_timedelta(np.rint(np.asarray(days) * 86_400e6), unit="us")


@dataclass(frozen=True)
class Training:
    """How Kairos is trained, where it is not as by default."""

    seed: int
    anchors: int = 4
    """A horizon of a day has 10 by itself, for which the tables are made; fewer, because there are many runs."""
    passes: int = 1
    """How many times as many epochs, of encoder and ranker."""
    before: int = 0
    """Days before as_of."""

    def over(self) -> dict[str, int]:
        """The settings' group ``training``."""
        epochs = {name: self.passes * defaults.model_fields[name].default for name in ("epochs", "retrieval_epochs")}
        return {"seed": self.seed, "anchors": self.anchors, **epochs}


def kairos(world: World, folder: Path, training: Training, off: str | None = None) -> Scorer:
    """Kairos made ready at as_of, with a switch of the settings' group ``model`` off; the jobs make the tables, once a world."""
    settings = _settings(world, folder)
    cutoff = moment(world.as_of)
    trained = cutoff - training.before * DAY
    for each in {trained, cutoff}:
        build_tables(folder, settings, each)
    chosen = settings_of(settings, {"model": {off: False} if off else {}, "training": training.over()})
    name = "-".join(map(str, (off or "full", *astuple(training))))
    return scorer(folder, fit(folder, chosen, trained, START, name), cutoff, world.repeats)


def listed(made: Scorer, world: World, folder: Path) -> np.ndarray:
    """Lists of everyone; who is not known at as_of gets the list for strangers."""
    known = lists_of(made, folder, moment(world.as_of), ids("u", np.arange(world.users)))
    stranger = made.prepared.moment.catalogue.item_ids.take(pa.array(made.cold[0])).to_pylist()
    return _places(world, dict.fromkeys(ids("u", np.arange(world.users)), stranger) | known)


@torch.no_grad()
def by_id_alone(made: Scorer, world: World, folder: Path) -> np.ndarray:
    """Retrieval by x̂·ŷ and nothing else, of a model without f_item, in a world that tells no categories.

    ŷ is then the id's embedding: no series, no release age, no popularity of the moment, no ranker. Nobody could do this on
    purpose; it is what remains of Kairos when all that is known of a young item is its id.
    """
    prepared, settings = made.prepared, made.prepared.bundle.settings
    now, features = prepared.moment, settings.features
    rows = user_rows(folder, moment(world.as_of), ids("u", np.arange(world.users)))
    users = UserBatch.from_table(rows, now.catalogue, features.sequence_length, features.categories_per_user)
    x = prepared.bundle.encoder.interest(users, prepared.table, now.catalogue, now.state.as_of_us)
    bias = torch.where(torch.from_numpy(now.state.available), 0.0, -torch.inf)
    barred = None if world.repeats else seen_pairs(users, len(now.catalogue))
    found = top_of_catalogue(x, now.y, bias, None, barred, DEPTH)
    names = now.catalogue.item_ids.to_numpy(zero_copy_only=False)
    return _places(world, {user: names[row[row >= 0]].tolist() for user, row in zip(users.user_ids.to_pylist(), found, strict=True)})


def timeless(world: World) -> dict[str, np.ndarray]:
    """What knows no time, but what is on offer: counts, one's own counts, ItemKNN. A stranger gets what is popular."""
    log = pd.DataFrame({USER: ids("u", world.log["user"]), ITEM: ids("i", world.log["item"]), TIME: moment(world.log["when"])})
    everyone = pd.Series(0, index=np.unique(log[USER]))
    split = Split(Log(world.name, (), DAY, world.repeats, (1,)), moment(world.as_of), log, everyone)
    gone = ~world.on_offer(world.as_of)[_numbers(split.coded.items)]
    count = peers.counts(split, None)
    own = split.coded.matrix()
    scores = {"popularity": peers.same_for_all(count)}
    if world.repeats:
        scores["own counts"] = lambda rows: own[rows].toarray() + 1e-4 * count / count.max()
    for neighbours, shrink in ((100, 0), (100, 10), (None, 10)):
        scores[f"ItemKNN {neighbours or 'all'}/{shrink}"] = peers.item_knn_score(split, {"neighbours": neighbours, "shrink": shrink})
    stranger = split.coded.items[np.argsort(-np.where(gone, -1, count), kind="stable")[:DEPTH]].tolist()
    strangers = dict.fromkeys(ids("u", np.arange(world.users)), stranger)
    return {
        name: _places(world, strangers | split.best(lambda rows, score=score: np.where(gone, -np.inf, score(rows))))
        for name, score in scores.items()
    }


def _settings(world: World, folder: Path) -> Path:
    """Write the raw log, the raw catalogue and the settings, unless they are there."""
    path = folder / "settings.yaml"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    log, every = world.log, np.arange(world.items)
    events = pd.DataFrame({"user": ids("u", log["user"]), "item": ids("i", log["item"]), "at": moment(log["when"])})
    far = np.where(np.isfinite(world.until), world.until, 10_000)
    items = pd.DataFrame({"item": ids("i", every), "released": moment(world.released), "until": moment(far)})
    columns = {"item_id": "item", "release_ts": "released", "available_from": "released", "available_until": "until"}
    if world.categories_told:
        items["category"] = [f"c{number}" for number in world.category]
        columns["category"] = "category"
    for name, frame in (("events", events), ("items", items)):
        frame.to_parquet(folder / f"{name}.parquet")
    tree = {
        "domain": world.name, "warehouse": str(folder / "warehouse"), "horizon": "1d", "repeat_consumption": world.repeats,
        "source": {
            "events": {"path": str(folder / "events.parquet"), "columns": {"user_id": "user", "item_id": "item", "event_ts": "at"}},
            "items": {"path": str(folder / "items.parquet"), "columns": columns},
        },
        "spark": {"master": "local[1]"},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(tree))
    return path


def _numbers(names: np.ndarray | list[str]) -> np.ndarray:
    return np.array([int(name[1:]) for name in names], int)


def _places(world: World, lists: Lists) -> np.ndarray:
    out = np.full((world.users, DEPTH), -1)
    for user, items in lists.items():
        out[int(user[1:]), : len(items)] = _numbers(items)
    return out
