"""The gate through the jobs, on a small shop: a fresh version is taken, one that proves worse is taken back, a person can too."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import shop
from safetensors.numpy import load_file, save_file

from features.contracts import RUNS
from features.windows import to_micros
from jobs.build_features import build
from jobs.errors import DataQualityError, ModelGateError
from jobs.gate_model import admit, gate_model, rollback, settle
from jobs.ingest import ingest
from jobs.lists.models import local, tracking_uri, usable
from jobs.train_model import train_model
from model.versions import champions, checkpoint, registry

pytestmark = [pytest.mark.spark, pytest.mark.slow]
WEEK = timedelta(days=7)


def spoilt(context, version, folder):
    """A version like another whose ranker orders the other way round: nothing that training could have shown."""
    bundle = Path(shutil.copytree(local(context.settings, version).folder, folder))
    weights = load_file(bundle / checkpoint.WEIGHTS)
    for name in weights:
        if name.startswith(("ranker.straight.", "ranker.score.1.", "ranker.curved.2.")):
            weights[name] = -weights[name]
    save_file(weights, bundle / checkpoint.WEIGHTS)
    manifest = json.loads((bundle / checkpoint.MANIFEST).read_text())
    manifest["files"] = {name: hashlib.sha256((bundle / name).read_bytes()).hexdigest() for name in manifest["files"]}
    (bundle / checkpoint.MANIFEST).write_text(json.dumps(manifest))
    uri, mlflow = tracking_uri(context.settings), context.settings.mlflow
    run = registry.start_run(uri, mlflow.experiment, str(folder.parent / "artifacts"), "spoilt")
    return registry.register(bundle, uri, mlflow.model, run, {registry.TRAINED_AS_OF: to_micros(context.as_of)})


def version_of(context, number):
    every = champions.registered(tracking_uri(context.settings), context.settings.mlflow.model)
    return next(v for v in every if v.version == number)


def gate_rows(context):
    rows = context.warehouse.read(RUNS).where("job = 'gate_model'").orderBy("started_ts").collect()
    return [(row.status, row.model_version, row.message) for row in rows]


@pytest.fixture(scope="module")
def first(spark, tmp_path_factory):
    """A shop with one trained night, a week before the others."""
    folder = tmp_path_factory.mktemp("gate")
    shop.events(users=60, n=2_500).to_csv(folder / "log.csv", index=False)
    settings = shop.settings(folder, gate={"least_overlap": 0.0}, training={"anchors": 1, "retrieval_epochs": 1, "epochs": 1, "negatives": 32, "threads": 1})
    context = replace(shop.context(spark, settings), as_of=shop.NIGHT - WEEK)
    ingest(context)
    build(context, backfill=True)
    train_model(context)
    return context


@pytest.fixture(scope="module")
def second(first):
    """A week later: a fresher version, by the same settings, and the first one judged."""
    context = replace(first, as_of=shop.NIGHT)
    ingest(context)
    build(context, backfill=False)
    train_model(context)
    return context


def test_the_first_version_is_champion_at_once_and_its_baselines_are_on_record(first):
    version = version_of(first, "1")
    assert (usable(first.settings, first.as_of).version, version.tags[champions.VERDICT]) == ("1", "promote")
    figures = json.loads(version.tags["gate_figures"])
    assert set(figures) == {"train_ndcg_at_10", "train_ndcg_popularity", "train_ndcg_personal"}
    assert gate_rows(first)[0][:2] == ("ok", "1")


def test_a_fresher_version_takes_over_and_the_older_one_is_judged_in_its_window(second):
    assert usable(second.settings, second.as_of).version == "2"
    assert usable(second.settings, second.as_of - WEEK).version == "1"  # a night made again
    judged = version_of(second, "1")
    assert judged.tags[champions.JUDGED] == str(to_micros(second.as_of))
    assert "no other version" in judged.tags["gate_reasons"]
    figures = json.loads(version_of(second, "2").tags["gate_figures"])
    assert figures["shadow_users"] == 60 and 0 < figures["shadow_overlap"] <= 1 and 0 < figures["shadow_coverage"] <= 1
    assert np.isfinite(figures["shadow_drift"])
    # It learned from a week more; what each input looks like beside the champion's data is on record.
    assert figures["events against the champion's"] > 1 and figures["greatest psi"] > 0
    from mlflow import MlflowClient

    metrics = MlflowClient(tracking_uri(second.settings)).get_run(version_of(second, "2").run_id).data.metrics
    assert metrics["data.psi item item_sales_7d"] <= figures["greatest psi"] + 1e-6 and metrics["volume.users"] == 60
    assert [row[:2] for row in gate_rows(second)] == [("ok", "1"), ("ok", "1"), ("ok", "2")]


def test_a_version_that_proves_worse_is_taken_back(second, tmp_path):
    bad = spoilt(second, version_of(second, "2"), tmp_path / "bundle")
    assert admit(second, bad).verdict == "promote"  # nothing that is asked at birth shows it
    assert usable(second.settings, second.as_of).version == bad.version == "3"
    later = replace(second, as_of=shop.NIGHT + WEEK)
    assert settle(replace(later, as_of=later.as_of - timedelta(hours=1))) is None  # its window has not passed
    ingest(later)
    with pytest.raises(ModelGateError, match="rejected: worse overall") as caught:
        gate_model(later)
    assert caught.value.exit_code == 4
    assert usable(later.settings, later.as_of).version == "2"
    assert usable(later.settings, second.as_of).version == "3"  # what was known then decided then
    tags = version_of(later, "3").tags
    figures = json.loads(tags["gate_figures"])
    assert (tags[champions.VERDICT], tags["gate_stage"]) == ("reject", "arrears")
    assert figures["lead"] < 0 and figures["ndcg"] < figures["rival_ndcg"] and "lead item in head" in figures
    status, version, message = gate_rows(later)[-1]
    assert (status, version) == ("ok", "3") and message.endswith("version 2 is champion again")
    assert gate_model(later) is None  # there is nothing more to judge
    from mlflow import MlflowClient

    run = MlflowClient(tracking_uri(later.settings)).get_run(version_of(later, "3").run_id)
    assert run.data.metrics["gate.arrears.lead"] == pytest.approx(figures["lead"])


def test_a_person_puts_the_former_champion_back(second):
    later = replace(second, as_of=shop.NIGHT + WEEK)
    before = usable(later.settings, later.as_of).version
    assert before == "2"
    tick = time.monotonic()
    rollback(later)
    assert time.monotonic() - tick < 30
    assert usable(later.settings, later.as_of).version == "1"
    assert gate_rows(later)[-1] == ("ok", "1", "version 1 is champion again, in place of version 2")
    with pytest.raises(ModelGateError, match="no former champion"):
        rollback(later)


@pytest.mark.soak  # what decides is tried in test_model_inputs.py
def test_a_version_that_learned_from_too_little_ends_the_run(second, tmp_path):
    """The data's fault and not the model's: exit code 3, the champion stays."""
    later = replace(second, as_of=shop.NIGHT + WEEK)
    build(later, backfill=False)
    before = usable(later.settings, later.as_of).version
    twin = version_of(later, "2")
    strict = later.settings.model_copy(update={"gate": later.settings.gate.model_copy(update={"volume_stop": 1.0, "drift_stop": 1e-9})})
    with pytest.raises(DataQualityError, match=r"is refused: .*inputs are spread otherwise") as caught:
        admit(replace(later, settings=strict), twin)
    assert caught.value.exit_code == 3
    assert usable(later.settings, later.as_of).version == before
    assert gate_rows(later)[-1][2].startswith("version 2: reject: ")
