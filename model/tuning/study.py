"""Tries settings on past windows: ``python -m model.tuning.study --spec study.json``, in as many processes as one likes.

A trial is judged as a night would be. For each held-out anchor a model is trained that knows nothing later than that moment,
its slates are made there, and what users then did says how good they are. The windows stand in for the future: settings that
win on them win on average, if the future is like them; ``Verdict`` (model/tuning/study_record.py) says whether the lead is chance.
Pruning: a trial below the median of the others after a window is not judged on the next (Golovin et al., "Google Vizier",
KDD 2017). What to try next: a tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), both by Optuna.
"""

from __future__ import annotations

import argparse
import hashlib
from typing import Any

import numpy as np
import optuna
import pyarrow as pa
import pyarrow.compute as pc
from optuna.exceptions import TrialPruned

from conf import columns as c
from model.as_of.catalogue import Catalogue
from model.as_of.events import read_events
from model.data import DataError, moment, read_table
from model.machine.distributed import ALONE, set_threads
from model.metrics import Draws, coverage, poisson_weights
from model.spec import StudySpec, TrainSpec, read_study
from model.train import moment_at, read_state, read_users, train
from model.training.budget import Budget
from model.training.labels import anchor_labels
from model.training.loop import Loop, NonFiniteLoss
from model.training.ranker_training import AnchorSlates, RankerTrainer, collect, ndcg_each
from model.training.trained import Trained
from model.tuning.search_space import changed, put
from model.tuning.study_record import Judged, fail, finish, is_as_is, next_trial, open_study, stop, together
from model.versions import tracking

METRIC, COVERAGE = "ndcg_at_10", "coverage_at_10"
_PLACES = 10


def work(spec: StudySpec) -> None:
    """Try settings until there are as many trials as asked, or the time is over."""
    study, budget = open_study(spec), Budget(spec.max_seconds, ALONE)
    while not budget.spent():
        trial = next_trial(study, spec)
        if trial is None:
            break
        _attempt(study, spec, trial)


def _attempt(study: optuna.Study, spec: StudySpec, trial: optuna.Trial) -> None:
    values = changed(spec.base.resolved_settings(), trial.params)
    settings = put(spec.base.settings, values)
    told = "the settings in use" if is_as_is(trial) else ", ".join(f"{k} {v}" for k, v in values.items())
    _say(f"trial {trial.number} begins: {told}")
    done: list[Judged] = []
    try:
        with tracking.nested(spec.run, f"trial {trial.number}", trial.params | values, TrialPruned) as log:
            for step, anchor in enumerate(spec.held_out):
                done.append(judge(spec, settings, anchor))
                log(METRIC, done[-1].ndcg.mean, step)
                log(COVERAGE, done[-1].coverage, step)
                so_far = together(done).mean
                trial.report(so_far, step)
                if len(done) < spec.windows and not is_as_is(trial) and trial.should_prune():
                    raise TrialPruned
        finish(study, trial, done)
        _say(f"trial {trial.number}: {METRIC} {so_far:.4f}")
    except TrialPruned:
        stop(study, trial)
        _say(f"trial {trial.number}: {METRIC} {so_far:.4f} after {len(done)} of {spec.windows} windows, stopped")
    except NonFiniteLoss as error:
        fail(study, trial, str(error))
        _say(f"trial {trial.number}: {error}")


def judge(spec: StudySpec, settings: dict[str, Any], anchor_us: int) -> Judged:
    """What is shown at a held-out anchor with these settings to the users who then did something.

    Raises DataError where nobody did.
    """
    training = spec.training(anchor_us, settings)
    trained = train(training, ALONE, tell=False)
    slates = judged_slates(spec.base, training, trained)
    training_settings = trained.settings.training
    loop = Loop(training_settings, ALONE, Budget(training_settings.max_seconds, ALONE))
    scores = RankerTrainer(trained.ranker, trained.settings, loop).scores(slates)
    each = ndcg_each(scores, slates.target, slates.labels, _PLACES)
    keys = np.array([_key(user) for user in slates.users.user_ids.to_pylist()])
    # The draws in use decide, whatever a trial changes: all trials must be drawn alike to be compared.
    ndcg = Draws.of(each, poisson_weights(keys, spec.base.resolved_settings().evaluation.draws))
    return Judged(ndcg, coverage(_shown(scores, slates), _PLACES, int(slates.moment.state.available.sum())))


def _shown(scores: np.ndarray, slates: AnchorSlates) -> list[list[int]]:
    """The first places of each list, fewer where the slate has fewer."""
    first = np.take_along_axis(slates.item, np.argsort(-scores, axis=1, kind="stable")[:, :_PLACES], 1)
    return [items[items >= 0].tolist() for items in first]


def judged_slates(base: TrainSpec, training: TrainSpec, trained: Trained) -> AnchorSlates:
    """What the model shows at the moment it was trained for, and which of it was chosen in the window, as ``base`` knows now."""
    settings, catalogue, now = trained.settings, trained.catalogue, training.as_of_us
    users = read_users(training, now, catalogue, settings)
    state = read_state(training, now, catalogue)
    seen = read_events(training, now, catalogue.item_ids)
    at = moment_at(training, trained.encoder, trained.table, seen, state, catalogue, settings)
    ids = _with_later(catalogue, read_table(base, "items", columns=[c.ITEM_ID])[c.ITEM_ID])
    known = read_events(base, base.as_of_us, ids)
    labels = anchor_labels(known, users, now, base.horizon_us, len(ids), base.repeat_consumption)
    if not len(labels.keys):
        raise DataError(
            f"nobody with a past did anything new in the window from {moment(now).as_py().isoformat()}: hold out other windows "
            "(another --as-of, or fewer tuning.windows)"
        )
    return collect(at, trained.encoder, trained.table, users, labels, settings, base.repeat_consumption)


def _with_later(catalogue: Catalogue, every: pa.ChunkedArray) -> pa.Array:
    """The catalogue's ids, then those that it does not know yet: nobody can be shown these, but who chose one was missed."""
    ids = every.combine_chunks().cast(pa.string())
    later = ids.filter(pc.invert(pc.is_in(ids, value_set=catalogue.item_ids)))
    return pa.concat_arrays([catalogue.item_ids, later])


def _key(user: str) -> int:
    return int.from_bytes(hashlib.blake2b(user.encode(), digest_size=8).digest(), "little", signed=True)


def _say(text: str) -> None:
    print(f"study: {text}", flush=True)  # noqa: T201


def main(arguments: list[str] | None = None) -> None:
    """Entry of each process."""
    parser = argparse.ArgumentParser(prog="model.tuning.study", description="Try settings on past windows.")
    parser.add_argument("--spec", required=True, help="JSON written by jobs/tune_model.py")
    spec = read_study(parser.parse_args(arguments).spec)
    set_threads(spec.base.resolved_settings().training.threads, spec.parallel)
    try:
        work(spec)
    except DataError as error:
        raise SystemExit(f"study: {error}") from None


if __name__ == "__main__":
    main()
