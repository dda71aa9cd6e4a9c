"""A small real deployment for tests of the jobs: a generated CSV log, settings that map it, and contexts on it."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from pyspark.sql import SparkSession

from conf.load import from_tree
from conf.settings import Settings
from jobs.cli import Context
from jobs.store.table_io import Warehouse

START = datetime(2024, 1, 1, tzinfo=UTC)
NIGHT = START + timedelta(days=42)
HOUR = NIGHT + timedelta(hours=6)
NEXT = NIGHT + timedelta(days=1)
DAYS = 50


def events(seed: int = 0, users: int = 30, items: int = 40, n: int = 1_500) -> pd.DataFrame:
    """Seeded events of DAYS days: each user has favourites, some items are everybody's."""
    random = np.random.default_rng(seed)
    user = random.integers(0, users, n)
    own = (user * 7 + random.integers(0, 4, n)) % items
    item = np.where(random.random(n) < 0.6, own, (random.pareto(1.2, n) * 4).astype(int) % items)
    seconds = np.sort(random.integers(0, DAYS * 86_400, n))
    return pd.DataFrame(
        {
            "who": [f"u{u}" for u in user],
            "what": [f"i{i}" for i in item],
            "when": (pd.Timestamp(START) + pd.to_timedelta(seconds, unit="s")).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "how_many": random.integers(1, 4, n),
        }
    )


def settings(folder: Path, **changes: object) -> Settings:
    """Settings by mapping alone; a network small enough for a test."""
    tree = {
        "domain": "testshop",
        "warehouse": str(folder / "warehouse"),
        "source": {
            "events": {
                "path": str(folder / "log.csv"),
                "format": "csv",
                "columns": {"user_id": "who", "item_id": "what", "event_ts": "when", "value": "how_many"},
            }
        },
        "top_k": 10,
        "model": {"width": 16},
        "training": {"anchors": 2, "retrieval_epochs": 1, "epochs": 1, "ranker_steps": 30, "ranker_epochs": 30, "negatives": 32, "threads": 1},
    }
    return from_tree(tree | changes)


def catalogue(folder: Path, gone: Collection[str] = ()) -> None:
    """The file of items: ``gone`` are on offer until HOUR, all others for good."""
    items = pd.DataFrame({"sku": [f"i{i}" for i in range(40)]})
    items["until"] = [f"{HOUR:%Y-%m-%dT%H:%M:%SZ}" if sku in gone else "" for sku in items.sku]
    items.to_csv(folder / "items.csv", index=False)


def with_catalogue(chosen: Settings, folder: Path) -> Settings:
    """These settings, with the catalogue of that folder."""
    tree = chosen.resolved()
    columns = {"item_id": "sku", "available_until": "until"}
    tree["source"]["items"] = {"path": str(folder / "items.csv"), "format": "csv", "columns": columns}
    return from_tree(tree)


def context(spark: SparkSession, chosen: Settings, as_of: datetime = NIGHT, mode: str = "nightly") -> Context:
    """A job's context on these settings."""
    return Context(spark, chosen, Warehouse(spark, chosen), as_of, mode, False)


def copied(built: Context, folder: Path, **changes: object) -> Context:
    """A context on a copy of these tables."""
    shutil.copytree(built.settings.warehouse, folder / "warehouse")
    tree = built.settings.resolved() | {"warehouse": str(folder / "warehouse")} | changes
    return context(built.spark, from_tree(tree), built.as_of, built.mode)
