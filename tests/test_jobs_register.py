"""A trained model on its way into MLflow: what is logged with it, and what happens when MLflow does not answer. No Spark."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from model_world import START, settings, shop, spec, write_tables

from jobs import train_model
from jobs.errors import ModelGateError
from jobs.training.trainer import training_folder
from model import train
from model.as_of.item_state import DAY_US
from model.versions import champions, registry

pytestmark = pytest.mark.slow
MOMENTS = [START + day * DAY_US for day in (39, 46, 53)]
AS_OF = datetime.fromtimestamp(MOMENTS[-1] / 1e6, UTC)
DEAD = "http://127.0.0.1:9"


@pytest.fixture
def trained_here(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The trainer runs in this process, and not twice."""
    torch.set_num_threads(1)
    runs: list[Path] = []

    def run(spec, training, folder, spark=None) -> None:
        from model.spec import write_spec

        write_spec(spec, folder / "spec.json")
        train.main(["--spec", str(folder / "spec.json")])
        runs.append(folder)

    monkeypatch.setattr(train_model, "run_trainer", run)
    return runs


def test_a_model_that_could_not_be_registered_is_registered_later_and_not_trained_again(tmp_path, trained_here, capfd) -> None:
    write_tables(tmp_path, shop(users=24, items=40), MOMENTS, 7 * DAY_US)
    chosen = settings(warehouse=str(tmp_path / "warehouse"), training={"ranker_steps": 10})
    asked = spec(tmp_path, MOMENTS, chosen, tmp_path / "x")

    def command(uri: str | None) -> registry.ModelVersion:
        over = chosen if uri is None else chosen.model_copy(update={"mlflow": chosen.mlflow.model_copy(update={"tracking_uri": uri})})
        context = SimpleNamespace(settings=over, as_of=AS_OF, spark=None)
        with training_folder(over, asked, AS_OF) as folder:
            return train_model._train(context, asked, folder)

    with pytest.raises(ModelGateError, match=r"127\.0\.0\.1:9 failed.* the trained model is kept at .*: the same command will register it"):
        command(DEAD)
    assert len(trained_here) == 1 and trained_here[0].exists()
    version = command(None)
    assert len(trained_here) == 1, "it was trained again"
    assert "was trained by an earlier run" in capfd.readouterr().out
    assert not trained_here[0].exists()

    from mlflow import MlflowClient

    client = MlflowClient(version.tracking_uri)
    run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert str(client.get_model_version_by_alias(chosen.mlflow.model, champions.CHALLENGER).version) == version.version
    assert {d.dataset.name for d in run.inputs.dataset_inputs} == set(asked.tables)
    assert {f.path for f in client.list_artifacts(version.run_id)} == {"bundle", "MODEL_CARD.md", "environment.txt", "plots"}
    plots = client.list_artifacts(version.run_id, "plots")
    assert {f.path for f in plots} == {"plots/loss.png", "plots/recall_by_item_age.png", "plots/calibration.png"}
    assert all(5_000 < f.file_size < 200_000 for f in plots)
    assert run.data.tags["model_sha256"] == version.sha256
    for name in ("encoder.learning_rate", "ranker.learning_rate", "encoder.step_loss", "ranker.examples_per_second", "encoder.waited_share",
                 "system.peak_memory_gib", "volume.events", "volume.new_users", "train_ndcg_at_10"):  # fmt: skip
        assert name in run.data.metrics, name
    rates = [m.value for m in client.get_metric_history(version.run_id, "ranker.learning_rate")]
    assert len(rates) >= 10 and max(rates) > 10 * min(rates)
    recall = client.get_metric_history(version.run_id, "candidate_recall.all")
    assert [m.step for m in recall] == [0, 1] and recall[-1].value == run.data.metrics["candidate_recall"]
    assert client.get_experiment(run.info.experiment_id).tags["mlflow.experimentKind"] == "custom_model_development"
    card = Path(client.download_artifacts(version.run_id, "MODEL_CARD.md", str(tmp_path))).read_text()
    assert f"as of {AS_OF:%Y-%m-%dT%H:%M:%SZ}" in card and version.sha256 in card and "| events |" in card
    assert "torch==" in Path(client.download_artifacts(version.run_id, "environment.txt", str(tmp_path))).read_text()
