"""Feature tables -> a model version in MLflow, trained under torchrun: a challenger, about which the gate decides at once."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

from conf.settings import Settings
from features.anchors import anchors_before
from features.contracts import FEATURE_TABLES, TABLES
from features.windows import to_micros
from jobs import cli
from jobs.cli import Context
from jobs.errors import DataQualityError, ModelGateError
from jobs.gate_model import admit, settle
from jobs.models import artifacts, references, registry_errors, tracking_uri
from jobs.progress import console, step
from jobs.run_log import recorded
from model import champions, registry
from model.registry import ModelVersion
from model.spec import TRAIN_TABLES, RunRef, TrainSpec, write_spec

_MICROSECOND = timedelta(microseconds=1)


def train_model(context: Context) -> None:
    """Write the trainer's spec, run it, register what it made, and let the gate decide.

    Older versions whose window has passed are judged first: the new one meets a champion that held.
    """
    settings = context.settings
    if context.dry_run:
        console.print(f"train_model would train on up to {settings.anchors} anchors before {context.as_of}")
        return
    settle(context)
    with (
        recorded(context.warehouse, "train_model", None, context.as_of) as run,
        tempfile.TemporaryDirectory(prefix="kairos-train-") as folder,
    ):
        anchors = built_anchors(context)
        run.counts["anchors"] = len(anchors)
        with step(context.spark, f"train on {len(anchors)} anchors, {settings.training.processes} process(es)"):
            version = _train(context, anchors, Path(folder))
        run.model_version = version.version
        run.message = f"version {version.version} of model {settings.mlflow.model} is registered as challenger"
    admit(context, version)


def _train(context: Context, anchors: list[datetime], folder: Path) -> ModelVersion:
    """Train in an MLflow run of its own; returns the version, a challenger."""
    settings, uri = context.settings, tracking_uri(context.settings)
    with registry_errors():
        tracked = registry.start_run(
            uri, settings.mlflow.experiment, artifacts(settings), f"train {context.as_of:%Y-%m-%dT%H:%MZ}"
        )
    run = RunRef(tracking_uri=uri, experiment=settings.mlflow.experiment, run_id=tracked)
    spec = train_spec(context, anchors).model_copy(update={"output": str(folder / "bundle"), "run": run})
    write_spec(spec, folder / "spec.json")
    try:
        _torchrun(settings, folder)
    except BaseException:
        with registry_errors():
            registry.fail_run(uri, tracked)
        raise
    with registry_errors():
        tags = {"trained_as_of_us": spec.as_of_us}
        version = registry.register(Path(spec.output), uri, settings.mlflow.model, tracked, tags)
        champions.challenge(uri, version)
    return version


def train_spec(context: Context, anchors: list[datetime]) -> TrainSpec:
    """What a training at as_of is told: the tables as they are now, the moments, the settings."""
    return TrainSpec(
        tables=references(context, [TABLES[name] for name in TRAIN_TABLES]),
        as_of_us=to_micros(context.as_of),
        anchors_us=tuple(to_micros(a) for a in anchors),
        horizon_us=context.settings.horizon // _MICROSECOND,
        repeat_consumption=context.settings.repeat_consumption,
        settings=context.settings.resolved(),
        output="",
    )


def built_anchors(context: Context, more: int = 0) -> list[datetime]:
    """The past moments that all feature tables have, oldest first, as many as the settings ask and ``more``."""
    wanted = anchors_before(context.as_of, context.settings, more)
    have = context.warehouse.moments(*FEATURE_TABLES)
    found = sorted(a for a in wanted if a in have)
    if not found:
        raise DataQualityError(
            f"no feature partition at any of the training anchors before {context.as_of:%Y-%m-%dT%H:%M:%SZ} "
            f"({', '.join(f'{a:%Y-%m-%dT%H:%MZ}' for a in wanted)}): the log starts too late, or features are not built; "
            "run jobs/build_features.py with the same --as-of, or a later one"
        )
    return found


def _torchrun(settings: Settings, folder: Path) -> None:
    """Run ``model.train`` under torchrun. Raises ModelGateError with the trainer's own last word."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        "--nproc-per-node", str(settings.training.processes), "--log-dir", str(folder / "logs"),
        "-m", "model.train", "--spec", str(folder / "spec.json"),
    ]  # fmt: skip
    follow("train", command, settings.training.threads, settings.training.processes)


def follow(name: str, command: list[str], threads: int, processes: int) -> None:
    """Run a trainer with its part of the cores and show what it says. Raises ModelGateError with its own last word.

    ``threads`` of each of ``processes``; 0: all cores, divided. The lines that count begin with ``name``.
    """
    threads = threads or max(1, (os.cpu_count() or 1) // processes)
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        # Threads that wait for each other must not burn the cores that they wait for.
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    told = ""
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        for line in process.stdout:
            console.print(f"    {line.rstrip()}", markup=False)
            if line.startswith(f"{name}: ") or not told.startswith(f"{name}: "):
                told = line.strip() or told
    if process.returncode:
        raise ModelGateError(f"model.{name} ended with exit code {process.returncode}; its last word: {told}")


if __name__ == "__main__":
    cli.main("train_model", train_model, "Train the temporal model and register it.")
