"""When a night trains, and that it makes its lists whatever comes of that."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import shop
from pyspark.sql import functions as F

from features.contracts import RECOMMENDATIONS
from features.windows import to_micros
from jobs import nightly as module
from jobs.cli import Context
from jobs.errors import DataQualityError, JobError, ModelGateError
from jobs.lists import models
from jobs.nightly import nightly
from model.versions import champions
from model.versions.registry import ModelVersion, RegistryError

WEEK, DAY = timedelta(days=7), timedelta(days=1)


def version(trained: datetime, number: int = 1, **tags: str) -> ModelVersion:
    return ModelVersion("sqlite://", "kairos", str(number), "run", "source", "0" * 64, 6, to_micros(trained), tags)


@pytest.mark.parametrize(
    ("training", "trained", "old"),
    [
        ({}, [], False),  # there is none: the night trains for that reason
        ({}, [shop.NIGHT - WEEK], True),
        ({}, [shop.NIGHT - WEEK + timedelta(hours=1)], False),
        ({}, [shop.NIGHT - 5 * WEEK, shop.NIGHT - DAY], False),
        ({}, [shop.NIGHT], False),  # the same night again
        ({}, [shop.NIGHT - 5 * WEEK, shop.NIGHT + WEEK], False),  # a past night again
        ({"every": "1d"}, [shop.NIGHT - DAY], True),
        ({"every": "30d"}, [shop.NIGHT - 4 * WEEK], False),
        ({"every": "never"}, [shop.NIGHT - 99 * WEEK], False),
        ({"anchor_every": "3d"}, [shop.NIGHT - WEEK], False),  # nine days are three anchors
        ({"anchor_every": "3d"}, [shop.NIGHT - 9 * DAY], True),
        ({"anchor_every": "6h"}, [shop.NIGHT - WEEK], True),
        ({"anchor_every": "60d"}, [shop.NIGHT - 59 * DAY], False),
    ],
)
def test_a_model_grows_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, training: dict, trained: list, old: bool) -> None:
    monkeypatch.setattr(champions, "registered", lambda *_: [version(t, k) for k, t in enumerate(trained)])
    assert models.grown_old(shop.settings(tmp_path, training=training), shop.NIGHT) == old


def test_what_the_gate_refused_is_not_trained_again_the_next_night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = version(shop.NIGHT - DAY, 2, **{champions.VERDICT: champions.REJECTED})
    monkeypatch.setattr(champions, "registered", lambda *_: [version(shop.NIGHT - 2 * WEEK), refused])
    assert not models.grown_old(shop.settings(tmp_path), shop.NIGHT)


def test_without_the_registry_nothing_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: object) -> list[ModelVersion]:
        raise RegistryError("MLflow does not answer")

    monkeypatch.setattr(champions, "registered", silent)
    assert not models.grown_old(shop.settings(tmp_path), shop.NIGHT)


@pytest.fixture
def did(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a night does, in order, each part by its name; ``build`` with whether past anchors are built too."""
    done: list[str] = []
    for name in ("ingest", "train_model", "settle", "score", "_judge_last_closed"):
        monkeypatch.setattr(module, name, lambda _, name=name: done.append(name))
    monkeypatch.setattr(module, "build", lambda _, backfill: done.append(f"build {backfill}"))
    return done


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(None, shop.settings(tmp_path), None, shop.NIGHT, "nightly", False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("has", "old", "built", "then"),
    [(False, False, "build True", "train_model"), (True, True, "build True", "train_model"), (True, False, "build False", "settle")],
)
def test_a_night_trains_where_there_is_no_model_or_an_old_one(
    context: Context, did: list[str], monkeypatch: pytest.MonkeyPatch, has: bool, old: bool, built: str, then: str
) -> None:
    monkeypatch.setattr(module, "has_model", lambda *_: has)
    monkeypatch.setattr(module, "grown_old", lambda *_: old)
    nightly(context)
    assert did == ["ingest", built, then, "score", "_judge_last_closed"]


@pytest.mark.parametrize("error", [ModelGateError("the trainer died"), DataQualityError("gate.drift_stop")])
def test_a_training_that_fails_costs_no_lists_and_is_told(
    context: Context, did: list[str], monkeypatch: pytest.MonkeyPatch, error: JobError
) -> None:
    def fails(_: Context) -> None:
        raise error

    monkeypatch.setattr(module, "train_model", fails)
    monkeypatch.setattr(module, "grown_old", lambda *_: True)
    monkeypatch.setattr(module, "has_model", lambda *_: True)
    with pytest.raises(type(error), match=str(error)):
        nightly(context)
    assert did == ["ingest", "build True", "score", "_judge_last_closed"]
    monkeypatch.setattr(module, "has_model", lambda *_: False)  # without any model there is nothing to make lists by
    with pytest.raises(type(error), match=str(error)):
        nightly(context)
    assert did[4:] == ["ingest", "build True"]


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.soak  # two trainings
def test_a_week_later_a_night_trains_anew_and_once(listed_shop: Context, tmp_path: Path) -> None:
    first = shop.copied(listed_shop, tmp_path)
    for as_of, versions, used in [
        (shop.NEXT, 1, "1"),
        (shop.NIGHT + WEEK, 2, "2"),
        (shop.NIGHT + WEEK, 2, "2"),
        (shop.NEXT, 2, "1"),
    ]:
        nightly(replace(first, as_of=as_of))
        assert len(champions.registered(models.tracking_uri(first.settings), "kairos")) == versions
        assert models.usable(first.settings, as_of).version == used
        made = first.warehouse.read(RECOMMENDATIONS).where(F.col("as_of_ts") == as_of).select("model_version").distinct().collect()
        assert [row.model_version for row in made] == [used]
