"""Nights as they happened, one after the other while the log grew, and the same nights made later in one go from the whole log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import shop
from pyspark.sql import SparkSession

from features.contracts import FEATURE_TABLES, RECOMMENDATIONS
from jobs.backfill import backfill
from jobs.build_features import build
from jobs.cli import Context
from jobs.ingest import ingest
from jobs.score import score
from jobs.train_model import train_model

#: Of the run that made a row, and not of what it says.
_OF_THE_RUN = ("run_id", "events_version")
Scoring = Callable[[], AbstractContextManager]


def _log(folder: Path, until: datetime) -> None:
    log = shop.events(n=600)
    log[log.when < until.strftime("%Y-%m-%dT%H:%M:%SZ")].to_csv(folder / "log.csv", index=False)


def as_they_happened(spark: SparkSession, folder: Path, nights: list[datetime], scoring: Scoring, train: bool = False, **settings: object) -> Context:
    """Each night knows the log of its day only. ``train``: the first makes the model of them all."""
    folder.mkdir()
    context = shop.context(spark, shop.settings(folder, **settings))
    for night in nights:
        _log(folder, night)
        tonight = replace(context, as_of=night)
        ingest(tonight)
        first = train and night == nights[0]
        build(tonight, backfill=first)
        if first:
            train_model(tonight)
        with scoring():
            score(tonight)
    return context


def made_later(spark: SparkSession, folder: Path, nights: list[datetime], scoring: Scoring, **settings: object) -> Context:
    """All of them from the whole log, and from what happened since."""
    folder.mkdir()
    context = shop.context(spark, shop.settings(folder, **settings))
    end = nights[-1] + timedelta(days=7)
    _log(folder, end)
    ingest(replace(context, as_of=end))
    backfill(replace(context, as_of=nights[-1]), nights[0], nights[-1] - nights[-2], newest_first=True)
    lists(context, nights, scoring)
    return context


def lists(context: Context, nights: list[datetime], scoring: Scoring) -> None:
    """Score each night."""
    for night in nights:
        with scoring():
            score(replace(context, as_of=night))


def rows(context: Context, nights: list[datetime]) -> Iterator[tuple[str, list[str]]]:
    """All rows of the nights as text, table by table: equal iff equal byte for byte after sorting."""
    for table in (*FEATURE_TABLES, RECOMMENDATIONS):
        names = [name for name in table.column_names if name not in _OF_THE_RUN]
        read = context.warehouse.read(table).select(*names)
        wanted = [pd.Timestamp(night) for night in nights]
        yield table.name, sorted(map(str, read.where(read.as_of_ts.isin(wanted)).collect()))
