"""Tries other settings on past windows -> ``<warehouse>/tuned/<domain>.yaml``, which says how far the best may be trusted.

The newest anchors are held out: for each, a model is trained that knows nothing later, and what users then did judges it
(model/tuning/study.py). What was tried is remembered: the same command goes on, with more ``tuning.trials`` it tries more. Nothing
that is in use changes; a person copies the file.
"""

from __future__ import annotations

import contextlib
import math
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from features.anchors import anchors_before
from features.contracts import EVENTS
from jobs import cli
from jobs.build_features import needed_anchors
from jobs.cli import Context
from jobs.errors import BusyError, DataQualityError, ModelGateError, UsageError
from jobs.lists.models import artifacts, registry_errors, tracking_uri
from jobs.progress import console, step
from jobs.store.run_log import recorded
from jobs.train_model import built_anchors, train_spec
from jobs.training.trainer import follow
from jobs.training.tuned import said, settings_text, show
from model.spec import RunRef, StudySpec, write_spec
from model.tuning.search_space import changed
from model.tuning.study_record import StudyError, Verdict, forget_abandoned, open_study, verdict
from model.versions import registry


def tune_model(context: Context) -> None:
    """Run the study and write what it found."""
    settings, tuning = context.settings, context.settings.tuning
    if context.dry_run:
        told = f"{tuning.trials} settings, each on {tuning.windows} windows before {context.as_of}"
        console.print(f"tune_model would try {told}, {tuning.parallel} at a time")
        return
    if context.settings_file is None:
        raise UsageError("the best settings are written as a file that extends another: run the job with --settings")
    folder = Path(settings.warehouse).absolute() / "tuned"
    with recorded(context.warehouse, "tune_model", None, context.as_of) as run, _alone(folder, settings.domain):
        spec = _spec(context, folder / f"{settings.domain}.journal")
        run.counts |= {"anchors": len(spec.base.anchors_us), "windows": spec.windows}
        with step(context.spark, f"try {spec.trials} settings, {spec.parallel} at a time"):
            found = _study(context, spec)
        run.counts |= {"judged_in_full": len(found.ranked), "stopped_early": found.pruned, "failed": found.failed, "lists": found.lists}
        run.message = said(found)
        best = folder / f"{settings.domain}.yaml"
        best.write_text(settings_text(found, spec, settings, context.settings_file.absolute(), context.as_of), encoding="utf-8")
    show(found, spec, settings)
    _say_what_next(context, found, best)


def _spec(context: Context, journal: Path) -> StudySpec:
    settings, tuning = context.settings, context.settings.tuning
    # Where windows overlap, the anchors right before a held-out one are of no use to it.
    more = tuning.windows + math.ceil(settings.horizon / settings.anchor_every) - 1
    anchors = built_anchors(context, more)
    learned = len(needed_anchors(context, context.warehouse.read(EVENTS), sorted(anchors_before(context.as_of, settings))))
    missing = sorted(set(anchors_before(context.as_of, settings, more)[: learned + more]) - set(anchors))
    build = (
        f"KAIROS__TRAINING__ANCHORS={learned + more} jobs/build_features.py --settings {context.settings_file} "
        f"--as-of {context.as_of:%Y-%m-%dT%H:%M:%SZ}"
    )
    if missing:
        told = f"no features at {_named(missing)}: older windows learn from fewer anchors than a training does"
        console.print(f"  {told}; where the log reaches back so far, build them: {build}", markup=False)
    try:
        return StudySpec(
            base=train_spec(context, anchors), windows=tuning.windows, trials=tuning.trials, journal=str(journal), seed=settings.training.seed,
            parallel=tuning.parallel, max_seconds=tuning.max_seconds,
        )  # fmt: skip
    except ValidationError:
        raise DataQualityError(
            f"features are built at {_named(anchors)}, too few to hold out {tuning.windows} (tuning.windows) and learn from what "
            f"is before; of use would be {_named(missing)}: {build}"
        ) from None


def _study(context: Context, spec: StudySpec) -> Verdict:
    """Let the processes work in an MLflow run of their own, and compare what they found."""
    uri, experiment = tracking_uri(context.settings), context.settings.mlflow.experiment
    study = open_study(spec)
    forget_abandoned(study)
    with registry_errors():
        tracked = registry.start_run(uri, experiment, artifacts(context.settings), f"tune {context.as_of:%Y-%m-%dT%H:%MZ}")
    spec = spec.model_copy(update={"run": RunRef(tracking_uri=uri, experiment=experiment, run_id=tracked)})
    try:
        _work(spec)
        found = verdict(study)
    except BaseException as error:
        with registry_errors():
            registry.fail_run(uri, tracked)
        if isinstance(error, StudyError):
            raise ModelGateError(str(error)) from error
        raise
    with registry_errors():
        metrics = {"ndcg_at_10": found.best.value or 0.0, "ndcg_at_10_in_use": found.as_is.value or 0.0, "p_value": found.p}
        best = changed(context.settings, found.best.params)
        registry.end_run(uri, tracked, metrics, {"verdict": said(found), **{f"best.{k}": str(v) for k, v in best.items()}})
    return found


def _work(spec: StudySpec) -> None:
    threads = spec.base.resolved_settings().training.threads
    with tempfile.TemporaryDirectory(prefix="kairos-tune-") as scratch, ThreadPoolExecutor(spec.parallel) as pool:
        write_spec(spec, file := Path(scratch) / "study.json")
        command = [sys.executable, "-m", "model.tuning.study", "--spec", str(file)]
        for each in [pool.submit(follow, "study", command, threads, spec.parallel) for _ in range(spec.parallel)]:
            each.result()


@contextlib.contextmanager
def _alone(folder: Path, domain: str) -> Iterator[None]:
    """Two runs would take each other's trials for abandoned ones. Raises BusyError."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{domain}.lock")
    try:
        with lock.acquire(timeout=0):
            yield
    except Timeout:
        raise BusyError(f"{domain} is being tuned by another run ({lock.lock_file}); try again later") from None


def _say_what_next(context: Context, found: Verdict, best: Path) -> None:
    as_of = f"--as-of {context.as_of:%Y-%m-%dT%H:%M:%SZ}"
    if found.settled:
        mine = f"conf/{context.settings.domain}_tuned.yaml"
        console.print(f"Take them: cp {best} {mine} && python jobs/train_model.py --settings {mine} {as_of}", markup=False)
    else:
        console.print(f"Keep the settings; what was best is noted in {best}. More evidence: a larger tuning.windows.", markup=False)


def _named(moments: list[datetime]) -> str:
    return ", ".join(f"{moment:%Y-%m-%dT%H:%MZ}" for moment in moments) or "none more"


if __name__ == "__main__":
    cli.main("tune_model", tune_model, "Try other settings on past windows and write the best as a settings file.")
