"""Logs to MLflow: a finished training (parameters, curves, metrics and the bundle; rank 0 only), and the trials of a study."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.checkpoint import CARD, HISTORY, MANIFEST, VOCABULARY, WEIGHTS
from model.spec import RunRef, TrainSpec

if TYPE_CHECKING:
    from model.train import Trained

#: Folder of the bundle among the run's artifacts.
ARTIFACTS = "model"


def log(spec: TrainSpec, trained: Trained, digest: str) -> None:
    """Write to the run that ``spec.run`` names, which the job made and will end; nothing without it."""
    if spec.run is None:
        return
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=spec.run.tracking_uri)
    params = [Param(k, str(v)[:500]) for k, v in sorted(_flat(trained.settings.resolved()).items())]
    tags = [RunTag("model_sha256", digest)]
    tags += [RunTag(f"table.{name}", f"{ref.path}@{ref.version}") for name, ref in sorted(spec.tables.items())]
    # The runs' own time line is the one place where MLflow wants a clock; the step is what curves are drawn over.
    metrics = [Metric(name, float(value), 0, step) for name, step, value in _curves(trained.history)]
    metrics += [Metric(name, float(value), 0, 0) for name, value in sorted(trained.metrics.items())]
    client.log_batch(spec.run.run_id, params=params[:100], tags=tags)
    if params[100:]:
        client.log_batch(spec.run.run_id, params=params[100:])
    client.log_batch(spec.run.run_id, metrics=metrics[:1000])
    for name in (MANIFEST, CARD, WEIGHTS, VOCABULARY, HISTORY):
        client.log_artifact(spec.run.run_id, str(Path(spec.output) / name), ARTIFACTS)


@contextlib.contextmanager
def nested(parent: RunRef | None, name: str, params: dict[str, Any], stopped: type[Exception]) -> Iterator[Callable[[str, float, int], None]]:
    """A run of its own within ``parent``; yields how to log a metric at a step. Logs nothing without a parent.

    It ends as FINISHED, as KILLED where the block raises ``stopped``, as FAILED with any other error.
    """
    if parent is None:
        yield lambda metric, value, step: None
        return
    from mlflow.entities import Param
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=parent.tracking_uri)
    experiment = client.get_run(parent.run_id).info.experiment_id
    run = client.create_run(experiment, tags={"mlflow.parentRunId": parent.run_id}, run_name=name).info.run_id
    client.log_batch(run, params=[Param(k, str(v)) for k, v in sorted(params.items())])
    status = "FAILED"

    def log(metric: str, value: float, step: int) -> None:
        client.log_metric(run, metric, value, timestamp=0, step=step)

    try:
        yield log
        status = "FINISHED"
    except stopped:
        status = "KILLED"
        raise
    finally:
        client.set_terminated(run, status)


def _curves(history: dict[str, Any], prefix: str = "") -> list[tuple[str, int, float]]:
    points: list[tuple[str, int, float]] = []
    for name, value in history.items():
        if isinstance(value, dict):
            points += _curves(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            points += [(f"{prefix}{name}", step, v) for step, v in enumerate(value)]
        elif isinstance(value, int | float):
            points.append((f"{prefix}{name}", 0, value))
    return points


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
