"""Feature tables -> a model version in MLflow, trained under torchrun; the new version becomes ``champion``."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

from conf.settings import Settings
from features.anchors import anchors_before
from features.contracts import ITEM_NEIGHBORS, ITEM_TEMPORAL, TABLES, USER_ITEM_REPEATS, USER_PROFILES, USER_SEQUENCES
from jobs import cli
from jobs.cli import Context
from jobs.errors import DataQualityError, ModelGateError
from jobs.models import artifacts, references, tracking_uri
from jobs.progress import console, step
from jobs.run_log import recorded
from jobs.table_io import to_micros
from model import registry
from model.spec import TRAIN_TABLES, RunRef, TrainSpec, write_spec

_MICROSECOND = timedelta(microseconds=1)
_PARTITIONED = (USER_SEQUENCES, USER_PROFILES, USER_ITEM_REPEATS, ITEM_NEIGHBORS, ITEM_TEMPORAL)


def train_model(context: Context) -> None:
    """Write the trainer's spec, run it, register what it made."""
    settings = context.settings
    if context.dry_run:
        console.print(f"train_model would train on up to {settings.training.anchors} anchors before {context.as_of}")
        return
    with (
        recorded(context.warehouse, "train_model", None, context.as_of) as run,
        tempfile.TemporaryDirectory(prefix="kairos-train-") as folder,
    ):
        anchors = _anchors(context)
        run.counts["anchors"] = len(anchors)
        uri = tracking_uri(settings)
        with step(context.spark, f"train on {len(anchors)} anchors, {settings.training.processes} process(es)"):
            tracked = registry.start_run(
                uri, settings.mlflow.experiment, artifacts(settings), f"train {context.as_of:%Y-%m-%dT%H:%MZ}"
            )
            spec = TrainSpec(
                tables=references(context, [TABLES[name] for name in TRAIN_TABLES]),
                as_of_us=to_micros(context.as_of),
                anchors_us=tuple(to_micros(a) for a in anchors),
                horizon_us=settings.horizon // _MICROSECOND,
                repeat_consumption=settings.repeat_consumption,
                settings=settings.resolved(),
                output=str(Path(folder) / "bundle"),
                run=RunRef(tracking_uri=uri, experiment=settings.mlflow.experiment, run_id=tracked),
            )
            write_spec(spec, Path(folder) / "spec.json")
            _torchrun(settings, Path(folder))
            version = registry.register(
                Path(spec.output), uri, settings.mlflow.model, tracked, {"trained_as_of_us": str(spec.as_of_us)}
            )
            registry.promote(uri, settings.mlflow.model, version)
        run.model_version = str(version.version)
        run.message = f"version {version.version} of model {settings.mlflow.model} is champion"


def _anchors(context: Context) -> list[datetime]:
    """The past moments that all feature tables have, newest first, as many as the settings ask."""
    wanted = anchors_before(context.as_of, context.settings)
    have = set.intersection(*(context.warehouse.moments(table) for table in _PARTITIONED))
    found = sorted(a for a in wanted if a in have)
    if not found:
        raise DataQualityError(
            f"no feature partition at any of the training anchors before {context.as_of:%Y-%m-%dT%H:%M:%SZ} "
            f"({', '.join(f'{a:%Y-%m-%dT%H:%MZ}' for a in wanted)}): the log starts too late, or features are not built; "
            "run jobs/build_features.py with the same --as-of, or a later one"
        )
    return found


def _torchrun(settings: Settings, folder: Path) -> None:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        "--nproc-per-node", str(settings.training.processes),
        "-m", "model.train", "--spec", str(folder / "spec.json"),
    ]  # fmt: skip
    threads = settings.training.threads or max(1, (os.cpu_count() or 1) // settings.training.processes)
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        tail: list[str] = []
        for line in process.stdout:
            console.print(f"    {line.rstrip()}", markup=False)
            tail = [*tail[-19:], line.strip()]
    if process.returncode:
        raise ModelGateError(
            f"the trainer ended with exit code {process.returncode}: {' / '.join(t for t in tail[-3:] if t)}"
        )


if __name__ == "__main__":
    cli.main("train_model", train_model, "Train the temporal model and register it.")
