"""Logs to MLflow: a finished training, from the files that it left, and the trials of a study.

The trainer itself knows nothing of MLflow: a store that is down or slow costs no training, and what was trained is logged once it
answers again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from model.spec import RunRef, TrainSpec
from model.training.plots import plots
from model.training.report import REPORT
from model.versions.checkpoint import CARD, HISTORY
from model.versions.model_card import environment, model_card

_AT_ONCE = 1_000
"""Metrics in one call; MLflow takes no more."""


def log(spec: TrainSpec, run: RunRef, digest: str) -> None:
    """Write a training to its run: settings, tables with versions, curves, throughput, plots, card and environment."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
    from mlflow.tracking import MlflowClient

    bundle = Path(spec.output)
    card, history, told = (json.loads(path.read_bytes()) for path in (bundle / CARD, bundle / HISTORY, bundle.with_suffix(REPORT)))
    client = MlflowClient(tracking_uri=run.tracking_uri)
    params = [Param(k, str(v)[:500]) for k, v in sorted(_flat(card["settings"]).items())]
    tags = [RunTag("model_sha256", digest)]
    tags += [RunTag(f"table.{name}", f"{ref.path}@{ref.version}") for name, ref in sorted(spec.tables.items())]
    for at in range(0, len(params), 100):
        client.log_batch(run.run_id, params=params[at : at + 100], tags=tags if not at else [])
    # The runs' own time line is the one place where MLflow wants a clock; the step is what curves are drawn over.
    points = [*_recall(history.pop("candidate_recall")), *_curves(history), *_progress(told)]
    points += [(f"volume.{name}", 0, value) for name, value in card.get("volume", {}).items()]
    points += [(name, 0, value) for name, value in sorted((card["metrics"] | {"seconds": told["seconds"]}).items())]
    metrics = [Metric(name, float(value), 0, step) for name, step, value in points]
    for at in range(0, len(metrics), _AT_ONCE):
        client.log_batch(run.run_id, metrics=metrics[at : at + _AT_ONCE])
    inputs = [
        DatasetInput(Dataset(name, str(ref.version), ref.format, json.dumps({"path": ref.path, "version": ref.version})), [InputTag("mlflow.data.context", "training")])
        for name, ref in sorted(spec.tables.items())
    ]  # fmt: skip
    client.log_inputs(run.run_id, inputs)
    client.log_text(run.run_id, model_card(card, spec, digest), "MODEL_CARD.md")
    client.log_text(run.run_id, environment(), "environment.txt")
    for name, figure in plots(told):
        client.log_figure(run.run_id, figure, f"plots/{name}.png")


def _recall(told: Mapping[str, Mapping[str, float]]) -> Iterator[tuple[str, int, float]]:
    """What share of the truth each source of the slate held: a curve over the anchors, which ``told`` has by their microseconds."""
    for step, anchor in enumerate(sorted(told, key=int)):
        for source, share in told[anchor].items():
            yield f"candidate_recall.{source}", step, share


def _progress(told: Mapping[str, Any]) -> Iterator[tuple[str, int, float]]:
    """Loss and learning rate by step, throughput and what was used of the machine by epoch."""
    for step, network, loss, rate in told["curve"]:
        yield f"{network}.step_loss", step, loss
        yield f"{network}.learning_rate", step, rate
    for epoch in told["epochs"]:
        for name, value in epoch.items():
            if name in ("examples_per_second", "waited_share"):
                yield f"{epoch['network']}.{name}", epoch["step"], value
            elif name in ("peak_memory_gib", "cpu_seconds", "peak_gpu_memory_gib"):
                yield f"system.{name}", epoch["step"], value


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
