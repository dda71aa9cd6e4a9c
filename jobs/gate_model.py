"""Which model version is used: a new one when it is made, an older one once its window has passed, the former one on demand.

``train_model`` asks about each version that it makes, ``nightly`` about the one whose window has passed; what is asked and why
is in model/gate.py. The job on its own judges what is to be judged, and leaves with exit code 4 where a version is rejected.
``--rollback`` makes the former champion champion again and marks the one in use as rejected; tables are not touched.

Each decision is a row of ``runs``, and tags and metrics of the version in MLflow.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from conf.settings import Settings
from features.contracts import ANCHOR_TABLES
from features.windows import from_micros, to_micros
from jobs import cli
from jobs.cli import Context
from jobs.errors import DataQualityError, ModelGateError
from jobs.judging import rivals
from jobs.lists.models import UsableModel, local, registry_errors, tracking_uri
from jobs.progress import console, step
from jobs.store.run_log import Run, recorded
from model import gate
from model.gate import Decision
from model.training import inputs
from model.versions import champions, checkpoint
from model.versions.checkpoint import Bundle, CheckpointError
from model.versions.registry import ModelVersion

_MICROSECOND = timedelta(microseconds=1)


def gate_model(context: Context) -> None:
    """Judge the version whose window has passed. Raises ModelGateError where it is rejected."""
    if context.dry_run:
        version, other = _to_judge(context)
        told = "no version" if version is None else f"version {version.version}"
        console.print(f"gate_model would judge {told}" + (f" against version {other.version}" if other else ""))
        return
    decision = settle(context, always=True)
    if decision is not None and decision.verdict == "reject":
        raise ModelGateError(f"rejected: {'; '.join(decision.reasons)}")


def settle(context: Context, always: bool = False) -> Decision | None:
    """Judge the newest version whose window has passed and that was not judged yet, and act on it.

    ``always``: leave a row in ``runs`` also where there is nothing to judge. Returns None then.
    """
    try:
        version, other = _to_judge(context)
    except ModelGateError as error:
        if always or context.settings.mlflow.on_unreachable == "fail":
            raise
        console.print(f"  {error}; a version that waits to be judged waits on", markup=False)
        return None
    if version is None and not always:
        return None
    with recorded(context.warehouse, "gate_model", None, context.as_of) as run:
        if version is None:
            run.message = "no version whose window has passed is waiting to be judged"
            return None
        run.model_version = version.version
        with step(context.spark, f"judge version {version.version} of the model in its window"):
            decision = _in_arrears(context, run, version, other)
        if decision is None:
            return None
        done = _act(context, version, other, decision)
        _mark(context, version, decision, "arrears", {champions.JUDGED: str(to_micros(context.as_of))})
        run.message = f"version {version.version}: {decision.verdict}: {'; '.join(decision.reasons)}{done}"
    return decision


def admit(context: Context, version: ModelVersion) -> Decision:
    """Decide about a version that was just trained. Raises ModelGateError where it is refused and there is no other to use."""
    settings, uri = context.settings, tracking_uri(context.settings)
    with recorded(context.warehouse, "gate_model", None, context.as_of) as run:
        run.model_version = version.version
        with registry_errors():
            holder = champions.champion(uri, settings.mlflow.model, to_micros(context.as_of))
        decision, faults = _with_inputs(context, version, holder, _at_birth(context, version, holder))
        told = ""
        if decision.verdict == "promote":
            with registry_errors():
                now = champions.promote(uri, version, to_micros(context.as_of))
            told = "" if now else "; a champion of a later as_of stays in use"
        _mark(context, version, decision, "birth")
        run.message = f"version {version.version}: {decision.verdict}: {'; '.join(decision.reasons)}{told}"
    if faults:
        raise DataQualityError(
            f"version {version.version} is refused: {'; '.join(faults)}; look at the data, or set gate.drift_stop, gate.volume_stop or "
            "gate.new_stop otherwise"
        )
    if decision.verdict == "reject" and holder is None:
        raise ModelGateError(f"version {version.version} is refused, and there is no other: {'; '.join(decision.reasons)}")
    return decision


def rollback(context: Context) -> None:
    """Make the former champion champion again. Raises ModelGateError where there is none."""
    settings, uri = context.settings, tracking_uri(context.settings)
    with registry_errors():
        holder, back = champions.current(uri, settings.mlflow.model), champions.former(uri, settings.mlflow.model)
    if holder is None or back is None:
        raise ModelGateError(f"model {settings.mlflow.model!r} in {uri} has no former champion that was not rejected")
    if context.dry_run:
        console.print(f"gate_model would put version {back.version} back in place of version {holder.version}")
        return
    with recorded(context.warehouse, "gate_model", None, context.as_of) as run:
        run.model_version = back.version
        with registry_errors():
            champions.promote(uri, back, to_micros(context.as_of), force=True)
        _mark(context, holder, Decision("reject", (f"rolled back to version {back.version}",)), "rollback")
        run.message = f"version {back.version} is champion again, in place of version {holder.version}"


def _to_judge(context: Context) -> tuple[ModelVersion | None, ModelVersion | None]:
    """The version to judge at as_of, and its rival."""
    settings, uri = context.settings, tracking_uri(context.settings)
    with registry_errors():
        every = champions.registered(uri, settings.mlflow.model)
        holder = champions.current(uri, settings.mlflow.model)
    # Never less than a horizon: the truth is not known before.
    window = max(settings.gate.window or settings.horizon, settings.horizon)
    version = champions.pending(every, to_micros(context.as_of), window // _MICROSECOND)
    return version, None if version is None else champions.rival(every, version, holder)


def _in_arrears(context: Context, run: Run, version: ModelVersion, other: ModelVersion | None) -> Decision | None:
    """What its window says; None, which the run's message explains, where that cannot be told yet."""
    moment = from_micros(version.trained_as_of_us)
    if moment not in context.warehouse.moments(*ANCHOR_TABLES):
        run.message = f"version {version.version} cannot be judged: no features at its as_of {moment:%Y-%m-%dT%H:%M:%SZ}"
        return None
    mine = _opened(context.settings, version)
    theirs = None if other is None else _opened(context.settings, other)
    if mine is None:
        return Decision("reject", ("it cannot be loaded",))
    sums, shadow = rivals.judged(context, moment, mine[0], None if theirs is None else theirs[0])
    if not sums:
        run.message = f"version {version.version} cannot be judged: nobody with a past did anything in its window"
        return None
    pairs = rivals.compared(sums, rivals.OLD if theirs is not None else rivals.NEW)
    run.counts["users_judged"] = pairs[gate.ALL][0].users
    settings, plain = context.settings.gate, rivals.baselines(sums)
    decision = gate.beside_baselines(pairs[gate.ALL][0], plain, settings) if theirs is None else gate.in_arrears(pairs, settings)
    more = {f"ndcg {name}": one.mean for name, one in plain.items()} | ({} if shadow is None else shadow.figures())
    return Decision(decision.verdict, decision.reasons, {**decision.figures, **more})


def _with_inputs(
    context: Context, version: ModelVersion, holder: ModelVersion | None, decision: Decision
) -> tuple[Decision, list[str]]:
    """The decision with what is told of the data that the version learned from; and the faults that refuse it."""
    mine = _opened(context.settings, version)
    theirs = None if holder is None else _opened(context.settings, holder)
    if mine is None:
        return decision, []
    found = inputs.differences(mine[1].card, None if theirs is None else theirs[1].card)
    warned, stopped = inputs.complaints(found, context.settings.gate)
    indices = {name: value for name, value in found.items() if name.startswith("psi ")}
    with registry_errors():
        champions.mark(tracking_uri(context.settings), version, {}, {re.sub(r"[^\w. -]", "_", f"data.{k}"): v for k, v in indices.items()})
    figures = {k: v for k, v in found.items() if k not in indices and not k.startswith(inputs.VOLUME)}
    figures |= {"greatest psi": max(indices.values())} if indices else {}
    told = Decision(decision.verdict, (*decision.reasons, *warned), {**decision.figures, **figures})
    return (Decision("reject", (*stopped, *told.reasons), told.figures), stopped) if stopped else (told, [])


def _at_birth(context: Context, version: ModelVersion, holder: ModelVersion | None) -> Decision:
    settings = context.settings
    mine = _opened(settings, version)
    if mine is None:
        return Decision("reject", ("it cannot be loaded",))
    theirs = None if holder is None else _opened(settings, holder)
    if theirs is None:
        decision = gate.at_birth(mine[1].card["metrics"], None, None, True, settings.gate)
        lost = () if holder is None else (f"champion {holder.version} cannot be loaded any more",)
        return Decision(decision.verdict, (*lost, *decision.reasons), decision.figures)
    with step(context.spark, f"compare lists of versions {version.version} and {theirs[0].version}"):
        shadow = rivals.shadow(context, mine[0], theirs[0])
    same = gate.recipe(mine[1].settings) == gate.recipe(theirs[1].settings)
    return gate.at_birth(mine[1].card["metrics"], theirs[1].card["metrics"], shadow, same, settings.gate)


def _opened(settings: Settings, version: ModelVersion) -> tuple[UsableModel, Bundle] | None:
    """A version that loads; None for one that was made by another release or whose files are spoilt, which is said."""
    try:
        model = local(settings, version)
        return model, checkpoint.load(model.folder, version.sha256)
    except (CheckpointError, ModelGateError) as error:
        console.print(f"  version {version.version} cannot be loaded: {error}", markup=False)
        return None


def _act(context: Context, version: ModelVersion, other: ModelVersion | None, decision: Decision) -> str:
    """Move the alias where the decision asks for it. Returns what was done, in words."""
    uri, as_of_us = tracking_uri(context.settings), to_micros(context.as_of)
    with registry_errors():
        holder = champions.current(uri, version.name)
        champion = holder is not None and holder.version == version.version
        if decision.verdict == "promote" and not champion:
            now = champions.promote(uri, version, as_of_us)
            return "; it is champion now" if now else "; a newer champion stays"
        if decision.verdict == "reject" and champion:
            back = other or champions.former(uri, version.name)
            if back is None:
                return "; it stays champion, because there is no other version"
            champions.promote(uri, back, as_of_us, force=True)
            return f"; version {back.version} is champion again"
    return ""


def _mark(context: Context, version: ModelVersion, decision: Decision, stage: str, more: dict[str, str] | None = None) -> None:
    figures = {name: round(float(value), 6) for name, value in decision.figures.items()}
    tags = {
        champions.VERDICT: decision.verdict, "gate_stage": stage, "gate_as_of_us": str(to_micros(context.as_of)),
        "gate_reasons": json.dumps(decision.reasons), "gate_figures": json.dumps(figures, sort_keys=True),
    }  # fmt: skip
    named = {re.sub(r"[^\w. -]", "_", f"gate.{stage}.{name}"): value for name, value in figures.items()}
    with registry_errors():
        champions.mark(tracking_uri(context.settings), version, tags | (more or {}), named)


def main(
    settings: Annotated[Path, typer.Option(help="settings file, e.g. conf/completejourney.yaml")],
    as_of: Annotated[str, typer.Option(help="the moment to speak for, e.g. 2017-12-01T00:00:00Z")],
    back: Annotated[bool, typer.Option("--rollback", help="put the former champion back")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be done; write nothing")] = False,
) -> None:
    """Judge the model version whose window has passed, or put the former champion back.

    Exit codes: 0 ok · 2 usage · 3 data quality · 4 model gate · 75 busy
    """
    sys.exit(cli.run(rollback if back else gate_model, "gate_model", settings, as_of, "nightly", dry_run))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
