"""Feature tables -> a model version in MLflow, trained by a process of its own (jobs/training/trainer.py): a challenger, about which the gate decides at once."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta
from pathlib import Path

from conf.settings import Settings
from features.anchors import anchors_before
from features.contracts import ANCHOR_TABLES, TABLES
from features.windows import to_micros
from jobs import cli
from jobs.cli import Context
from jobs.errors import DataQualityError, ModelGateError
from jobs.gate_model import admit, settle
from jobs.lists.models import artifacts, references, tracking_uri
from jobs.progress import console, step
from jobs.store.run_log import recorded
from jobs.training.trainer import run_trainer, training_folder
from model.spec import TRAIN_TABLES, RunRef, TrainSpec
from model.training.report import REPORT
from model.versions import champions, checkpoint, registry, tracking
from model.versions.bundle_hash import bundle_hash
from model.versions.checkpoint import CheckpointError
from model.versions.registry import ModelVersion, RegistryError

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
    with recorded(context.warehouse, "train_model", None, context.as_of) as run:
        anchors = built_anchors(context)
        run.counts["anchors"] = len(anchors)
        spec = train_spec(context, anchors)
        with (
            step(context.spark, f"train on {len(anchors)} anchors, {settings.training.processes} process(es)"),
            training_folder(settings, spec, context.as_of) as folder,
        ):
            version = _train(context, spec, folder)
        run.model_version = version.version
        run.message = f"version {version.version} of model {settings.mlflow.model} is registered as challenger"
    admit(context, version)


def _train(context: Context, spec: TrainSpec, folder: Path) -> ModelVersion:
    """Train, and register what was made; returns the version, a challenger.

    What an earlier run trained and could not register, because MLflow did not answer, is registered and not trained again.
    """
    settings, uri = context.settings, tracking_uri(context.settings)
    spec = spec.model_copy(update={"output": str(folder / "bundle"), "checkpoints": str(folder)})
    digest = _finished(spec)
    fresh = digest is None
    if digest is None:
        run_trainer(spec, settings.training, folder, context.spark)
        digest = bundle_hash(Path(spec.output))
    else:
        console.print("  this model was trained by an earlier run, and is registered now", markup=False)
    try:
        again = [] if fresh else [v for v in champions.registered(uri, settings.mlflow.model) if v.sha256 == digest]
        if again:  # it was stored already when MLflow fell silent
            champions.challenge(uri, again[-1])
            return again[-1]
        return _registered(settings, uri, spec, digest, f"train {context.as_of:%Y-%m-%dT%H:%MZ}")
    except RegistryError as error:
        raise ModelGateError(f"{error}; the trained model is kept at {folder}: the same command will register it") from error


def _finished(spec: TrainSpec) -> str | None:
    """The digest of the whole bundle that an earlier run left; None without one."""
    try:
        return checkpoint.load(spec.output).digest if Path(spec.output).with_suffix(REPORT).exists() else None
    except CheckpointError:
        return None


def _registered(settings: Settings, uri: str, spec: TrainSpec, digest: str, name: str) -> ModelVersion:
    """Log the training to a run of its own and register the model."""
    tracked = registry.start_run(uri, settings.mlflow.experiment, artifacts(settings), name)
    try:
        with registry.connected(uri):
            tracking.log(spec, RunRef(tracking_uri=uri, experiment=settings.mlflow.experiment, run_id=tracked), digest)
        version = registry.register(Path(spec.output), uri, settings.mlflow.model, tracked, {registry.TRAINED_AS_OF: spec.as_of_us})
        champions.challenge(uri, version)
        return version
    except BaseException:
        with contextlib.suppress(RegistryError):
            registry.fail_run(uri, tracked)
        raise


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
        checkpoints=None,
    )


def built_anchors(context: Context, more: int = 0) -> list[datetime]:
    """The past moments that all feature tables have, oldest first, as many as the settings ask and ``more``."""
    wanted = anchors_before(context.as_of, context.settings, more)
    have = context.warehouse.moments(*ANCHOR_TABLES)
    found = sorted(a for a in wanted if a in have)
    if not found:
        raise DataQualityError(
            f"no feature partition at any of the training anchors before {context.as_of:%Y-%m-%dT%H:%M:%SZ} "
            f"({', '.join(f'{a:%Y-%m-%dT%H:%MZ}' for a in wanted)}): the log starts too late, or features are not built; "
            "run jobs/build_features.py with the same --as-of, or a later one"
        )
    return found


if __name__ == "__main__":
    cli.main("train_model", train_model, "Train the temporal model and register it.")
