"""What a study remembers: its trials in a journal (JSON lines) that processes share, and what they say when it is over.

Optuna's journal needs no server, and a study that was stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import optuna
from filelock import FileLock
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from model.metrics import Difference, Draws, reality_check
from model.spec import StudySpec
from model.tuning.search_space import in_use, space

_STARTUP = 3
"""Trials judged in full before one is stopped early, by comparison with their median."""
_CHANCE = 0.05
_AS_IS, _SUMS, _WINDOWS, _COVERAGE, _FAILED = "as_is", "sums", "windows", "coverage", "failed"


@dataclass(frozen=True)
class Judged:
    """A held-out window: NDCG@10, drawn over its users, and the share of what is on offer that stands in the first ten places of anybody."""

    ndcg: Draws
    coverage: float


class StudyError(Exception):
    """The study has nothing to say; the message says why and what to do."""


def open_study(spec: StudySpec) -> optuna.Study:
    """The study of this question in the journal, made where it is missing."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(spec.journal)), study_name=spec.name, direction="maximize",
        pruner=MedianPruner(n_startup_trials=_STARTUP), load_if_exists=True,
    )  # fmt: skip


def forget_abandoned(study: optuna.Study) -> None:
    """Give up trials that a killed process left running. Only while no process works on the study."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)


def next_trial(study: optuna.Study, spec: StudySpec) -> Trial | None:
    """Begin a trial; None when as many as asked were tried or are being tried. The first is of the settings in use."""
    # Counting and beginning is one step among the processes, so that they make no trial too many.
    with FileLock(f"{spec.journal}.turn"):
        trials = study.get_trials(deepcopy=False)
        if sum(_counts(trial) for trial in trials) >= spec.trials:
            return None
        if not any(is_as_is(trial) and _counts(trial) for trial in trials):
            study.enqueue_trial(in_use(spec.base.resolved_settings()), user_attrs={_AS_IS: True})
        # A seed for each trial: a study that was stopped goes on as if it had not been.
        study.sampler = TPESampler(seed=spec.seed + len(trials), constant_liar=spec.parallel > 1)
        return study.ask(space(spec.base.resolved_settings()))


def _counts(trial: FrozenTrial) -> bool:
    """A failure of its own making counts as tried; one left behind by a killed process does not."""
    return trial.state != TrialState.FAIL or _FAILED in trial.user_attrs


def is_as_is(trial: FrozenTrial | Trial) -> bool:
    """Whether a trial is of the settings in use."""
    return bool(trial.user_attrs.get(_AS_IS))


def together(windows: Sequence[Judged]) -> Draws:
    """NDCG@10 over the lists of all windows."""
    return sum((one.ndcg for one in windows[1:]), windows[0].ndcg)


def finish(study: optuna.Study, trial: Trial, windows: Sequence[Judged]) -> None:
    """Keep what a trial reached: the mean over all judged lists, and the sums that another trial can be compared by."""
    found = together(windows)
    trial.set_user_attr(_WINDOWS, [one.ndcg.mean for one in windows])
    trial.set_user_attr(_COVERAGE, fmean(one.coverage for one in windows))
    trial.set_user_attr(_SUMS, {"total": found.total.tolist(), "weight": found.weight.tolist()})
    study.tell(trial, found.mean)


def stop(study: optuna.Study, trial: Trial) -> None:
    """End a trial early that lags behind."""
    study.tell(trial, state=TrialState.PRUNED)


def fail(study: optuna.Study, trial: Trial, why: str) -> None:
    """End a trial whose settings cannot be trained with."""
    trial.set_user_attr(_FAILED, why)
    study.tell(trial, state=TrialState.FAIL)


def each_window(trial: FrozenTrial) -> list[float]:
    """NDCG@10 of a finished trial in each window, oldest first."""
    return list(trial.user_attrs[_WINDOWS])


def coverage(trial: FrozenTrial) -> float | None:
    """Coverage@10 of a finished trial, the mean over its windows; None of one that was judged before coverage was."""
    return trial.user_attrs.get(_COVERAGE)


@dataclass(frozen=True)
class Verdict:
    """How the best trial compares with the settings in use.

    ``lead`` is of these two alone, paired by user; None for too few users. ``p`` is of a lead by chance, and knows that the
    best of many was picked; it does not know of trials that were stopped early, nor of other seeds.
    """

    as_is: FrozenTrial
    ranked: tuple[FrozenTrial, ...]
    """Trials judged in full, best first."""
    lists: int
    lead: Difference | None
    p: float
    pruned: int
    failed: int

    @property
    def best(self) -> FrozenTrial:
        """The trial with the highest mean."""
        return self.ranked[0]

    @property
    def settled(self) -> bool:
        """Whether the lead is more than chance: its interval lies above 0, and p is small."""
        return self.lead is not None and self.lead.interval.low > 0 and self.p < _CHANCE


def verdict(study: optuna.Study) -> Verdict:
    """Compare what was tried. Raises StudyError where the settings in use were not judged."""
    trials = study.get_trials(deepcopy=False)
    full = [t for t in trials if t.state == TrialState.COMPLETE]
    as_is = next((t for t in full if is_as_is(t)), None)
    if as_is is None:
        why = next((t.user_attrs[_FAILED] for t in trials if is_as_is(t) and _FAILED in t.user_attrs), "no trial of them has ended")
        raise StudyError(f"the settings in use were not judged, so nothing can be compared with them: {why}")
    # Equal means: what one has comes first.
    ranked = sorted(full, key=lambda t: (-(t.value or 0.0), not is_as_is(t), t.number))
    first, others = _draws(as_is), [_draws(t) for t in full if t is not as_is]
    lead = None if ranked[0] is as_is else _draws(ranked[0]).less(first)
    p = 1.0 if lead is None else reality_check(first, others)
    states = [t.state for t in trials if _counts(t)]
    return Verdict(as_is, tuple(ranked), first.users, lead, p, states.count(TrialState.PRUNED), states.count(TrialState.FAIL))


def _draws(trial: FrozenTrial) -> Draws:
    sums = trial.user_attrs[_SUMS]
    return Draws(np.array(sums["total"]), np.array(sums["weight"]))
