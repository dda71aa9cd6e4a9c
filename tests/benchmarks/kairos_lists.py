"""Kairos on the logs of the benchmark: the jobs make the tables, the trainer trains, the scorer makes the lists.

Settings are the defaults; a log only says where its columns are, what may repeat and how long the horizon is.
Tables are made once a (log, cutoff) under the folder that KAIROS_BENCHMARKS names (default: warehouse/benchmarks/kairos).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from protocol import Choice, Lists, Log, MissingError, Recommender, Split, load, shared
from results import KAIROS

ROOT = Path(__file__).resolve().parents[2]
CATALOGUES = {
    "movietweetings_100k": {"title": "title", "category": "category", "release_ts": "release_time"},
    "ifdb_played": {"title": "title", "category": "category", "release_ts": "release_time"},
    "memetracker_blogs": {"release_ts": "release_time"},
}


def make(split: Split, choice: Choice) -> Lists:
    """Lists of one cutoff. Raises MissingError for a log whose columns are not described here."""
    return _made(split, choice, {None: split.users})


def make_of_days(split: Split, choice: Choice) -> Lists:
    """Lists of a model that was trained for the whole time between trainings, not for the log's shorter horizon."""
    return _made(split, choice, {None: split.users}, horizon=pd.Timedelta(split.log.trained))


def make_exploring(split: Split, choice: Choice) -> Lists:
    """Lists of ten by the same model, their last two places drawn (``scoring.explore_places``)."""
    return _made(split, choice, {None: split.users}, top_k=10, explore=2)


def make_knowing_visits(split: Split, choice: Choice) -> Lists:
    """Lists of the same model, told when each user comes (to a 24th of the horizon) and nothing that happened until then.

    No recommender could make them: they say what not knowing the time of the visit costs.
    """
    part = split.log.horizon / 24
    number = ((split.visits - split.cutoff) / part).astype(int)
    visits = split.visits.groupby(number)
    return _made(split, choice, {split.cutoff + (k + 0.5) * part: users.index.to_numpy() for k, users in visits})


def _made(
    split: Split, choice: Choice, asked: dict[pd.Timestamp | None, np.ndarray], horizon: pd.Timedelta | None = None, **places: int
) -> Lists:
    import kairos_run  # torch and PySpark only where lists are made

    # Anchors of other horizons have other labels, and so other rows of users.
    of = split.log.name if horizon is None else f"{split.log.name}-{horizon / pd.Timedelta('1h'):.0f}h"
    folder = Path(os.environ.get("KAIROS_BENCHMARKS", ROOT / "warehouse/benchmarks/kairos")) / of
    settings = _settings(split.log, folder, horizon=horizon)
    trained = split.cutoff.floor(split.log.trained) if split.log.trained else split.cutoff
    kairos_run.build_tables(folder, settings, trained)
    if split.cutoff > trained:  # nothing is learned there, so that one anchor is enough
        kairos_run.build_tables(folder, _settings(split.log, folder, "scored", horizon, anchors=1), split.cutoff)
    chosen = kairos_run.settings_of(settings, {"training": {"seed": int(choice["seed"])}})
    name = f"{trained:%Y%m%d%H}-{choice['seed']}"
    model = kairos_run.fit(folder, chosen, trained, split.past["event_time"].min(), name)
    lists: Lists = {}
    for visit, users in asked.items():
        ready = kairos_run.scorer(folder, model, split.cutoff, chosen.repeat_consumption, visit, **places)
        lists |= kairos_run.lists_of(ready, folder, split.cutoff, users)
    return lists


def _settings(log: Log, folder: Path, name: str = "settings", horizon: pd.Timedelta | None = None, **training: Any) -> Path:
    """Write a settings file of the log; ``horizon``: another than the log's."""
    folder.mkdir(parents=True, exist_ok=True)
    tree: dict[str, Any] = {
        "horizon": f"{(horizon or log.horizon) / pd.Timedelta('1h'):.0f}h", "repeat_consumption": log.repeats, "warehouse": str(folder / "warehouse"),
        "domain": log.name, "ingest": {"max_rejected_share": 1.0},
        **({"training": training} if training else {}),
    }  # fmt: skip
    if log.name == "completejourney":
        tree = {"extends": str(ROOT / "conf" / "completejourney.yaml")} | tree
    elif log.data in CATALOGUES:
        root = shared(log.data)
        columns = {"user_id": "user_id", "item_id": "item_id", "event_ts": "event_time", "value": "value"}
        tree["source"] = {
            "events": {"path": str(_some(log, root / "events.parquet", folder)), "columns": columns},
            "items": {"path": str(root / "items.parquet"), "columns": {"item_id": "item_id", **CATALOGUES[log.data]}},
        }
    elif log.data == "ml_100k":  # no catalogue: ids and times alone
        events = load(log.data)
        events.assign(event_time=events["event_time"].dt.tz_localize("UTC")).to_parquet(folder / "events.parquet")
        columns = {"user_id": "user_id", "item_id": "item_id", "event_ts": "event_time"}
        tree["source"] = {"events": {"path": str(folder / "events.parquet"), "columns": columns}}
    else:
        raise MissingError(f"{log.name}: tests/benchmarks/kairos_lists.py does not say where its columns are")
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def _some(log: Log, events: Path, folder: Path) -> Path:
    """The file of a log's events, of some users where it is no more than these."""
    if log.users == 1:
        return events
    whole = pd.read_parquet(events)
    whole[whole["user_id"].isin(log.events()["user_id"].unique())].to_parquet(folder / "events.parquet", index=False)
    return folder / "events.parquet"


def _choices(log: Log) -> list[Choice]:
    return [{}]


RECOMMENDERS = [
    Recommender(KAIROS, make, _choices, seeded=True),
    Recommender(f"{KAIROS}, of days", make_of_days, lambda log: [{}] if log.trained else [], seeded=True),
    Recommender(f"{KAIROS}, exploring", make_exploring, _choices, seeded=True),
    Recommender(f"{KAIROS}, visit known", make_knowing_visits, _choices, seeded=True),
]
