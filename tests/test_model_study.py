"""The study: what is tried, on which windows, and what it says; mostly with a judge that trains nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from model_world import START, poisoned, settings, shop, spec, write_tables
from optuna.trial import TrialState
from pydantic import ValidationError

from conf.load import from_tree, load
from model.as_of.item_state import DAY_US
from model.machine.distributed import World
from model.metrics import Draws, poisson_weights
from model.spec import RunRef, StudySpec, read_study, write_spec
from model.train import train
from model.training.ranker_training import AnchorSlates
from model.training.trained import Trained
from model.tuning import search_space, study
from model.tuning.search_space import SPACE, changed, in_use, look_up, put, space
from model.tuning.study_record import (
    Judged,
    StudyError,
    coverage,
    forget_abandoned,
    is_as_is,
    next_trial,
    open_study,
    verdict,
)
from model.versions import registry

CONF = Path(__file__).parents[1] / "conf"
WEEK = 7 * DAY_US
MOMENTS = [START + day * DAY_US for day in (32, 39, 46, 53)]
HELD_OUT = MOMENTS[-2]
SHOP = [e for e in shop() if e[2] < MOMENTS[-1]]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def asked(folder: Path, **over: object) -> StudySpec:
    """A study over tables that need not be there."""
    short = settings(evaluation={"draws": 200}, training={"epochs": 1, "retrieval_epochs": 1})
    base = spec(folder, MOMENTS, short, folder / "bundle")
    return StudySpec(**{"base": base, "windows": 1, "trials": 4, "journal": str(folder / "journal"), **over})


def world(folder: Path, events: list) -> StudySpec:
    write_tables(folder, events, MOMENTS, WEEK)
    return asked(folder)


# -- the space -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(p for p in CONF.glob("*.yaml") if p.name != "base.yaml"), ids=lambda p: p.stem)
def test_every_path_is_a_setting_and_what_is_in_use_lies_within_its_bounds(path: Path) -> None:
    domain = load(path, {})
    assert all(look_up(domain.resolved(), path) is not None for path in SPACE)
    bounds, now = space(domain), in_use(domain)
    assert all(bounds[path]._contains(bounds[path].to_internal_repr(now[path])) for path in bounds)
    assert ("slate.repeats" in bounds) == domain.repeat_consumption
    assert changed(domain, now) == {}


def test_bounds_give_way_to_what_is_in_use_and_to_what_fits() -> None:
    odd = settings(model={"width": 30, "heads": 3, "use_slate": False}, slate={"neighbors": 500}, training={"learning_rate": 0.05})
    bounds = space(odd)
    assert bounds["slate.neighbors"].high == 500 and bounds["training.learning_rate"].high == 0.05
    assert bounds["model.width"].choices == (24, 48, 96, 30), "32 and 64 do not split into three heads"
    assert "model.slate_layers" not in bounds


def test_values_are_put_where_they_belong_and_written_as_people_write_them() -> None:
    mine = settings()
    values = changed(mine, in_use(mine) | {"training.learning_rate": 0.00312345, "slate.audience": 7})
    assert values == {"training.learning_rate": 0.00312, "slate.audience": 7}
    made = from_tree(put(mine.resolved(), values))
    assert (made.training.learning_rate, made.slate.audience, made.model) == (0.00312, 7, mine.model)
    assert mine.slate.audience == 15


# -- the windows -----------------------------------------------------------------------------------------------------


def test_a_held_out_window_is_judged_by_a_run_at_its_anchor() -> None:
    two = asked(Path("x"), windows=2)
    assert two.held_out == (MOMENTS[1], MOMENTS[2])
    for anchor, learned in ((MOMENTS[1], MOMENTS[:1]), (MOMENTS[2], MOMENTS[:2])):
        told = two.training(anchor, two.base.settings)
        assert (told.as_of_us, list(told.anchors_us)) == (anchor, learned)


def test_a_window_that_overlaps_is_not_learned_from() -> None:
    base = asked(Path("x")).base.model_copy(update={"anchors_us": (MOMENTS[0], HELD_OUT - 3 * DAY_US, HELD_OUT)})
    assert asked(Path("x"), base=base).training(HELD_OUT, base.settings).anchors_us == (MOMENTS[0],)


@pytest.mark.parametrize("windows", [3, 4])
def test_a_study_needs_something_to_learn_from(windows: int) -> None:
    with pytest.raises(ValidationError, match=f"3 anchors are too few to hold out {windows}"):
        asked(Path("x"), windows=windows)


def test_a_specification_survives_the_file_and_names_its_question(tmp_path: Path) -> None:
    one = asked(tmp_path)
    write_spec(one, tmp_path / "study.json")
    assert read_study(tmp_path / "study.json") == one
    assert asked(tmp_path, trials=9, parallel=2).name == one.name, "going on is the same question"
    other = one.base.model_copy(update={"as_of_us": MOMENTS[-1] + 1})
    assert len({one.name, asked(tmp_path, seed=1).name, asked(tmp_path, windows=2).name, asked(tmp_path, base=other).name}) == 4


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[list, Trained, AnchorSlates]]:
    """The shop with an item that nobody could know of, as it is and with another future: events, model, slates."""
    torch.set_num_threads(1)
    events = sorted([*SHOP, ("u001", "i999", HELD_OUT + DAY_US)], key=lambda e: (e[2], e[0], e[1]))
    found = []
    for name, log in (("clean", events), ("dirty", poisoned(events, HELD_OUT))):
        made = world(tmp_path_factory.mktemp(name), log)
        told = made.training(HELD_OUT, made.base.settings)
        trained = train(told, World(0, 1), tell=False)
        found.append((log, trained, study.judged_slates(made.base, told, trained)))
    return found


def test_what_happens_in_the_window_judges_a_model_and_changes_nothing_of_it(judged: list) -> None:
    (_, clean, one), (_, dirty, two) = judged
    assert all(torch.equal(a, b) for a, b in zip(clean.ranker.parameters(), dirty.ranker.parameters(), strict=True))
    assert np.array_equal(one.item, two.item) and np.array_equal(one.signals, two.signals)
    assert not np.array_equal(one.target, two.target), "the poison must change the labels, or nothing is tested"


def test_everyone_with_a_past_is_judged_and_what_nobody_could_know_counts_as_missed(judged: list) -> None:
    for log, _, slates in judged:
        past, window = [e for e in log if e[2] < HELD_OUT], [e for e in log if e[2] >= HELD_OUT]
        users = {u for u, _, _ in past} & {u for u, _, _ in window}
        assert set(slates.users.user_ids.to_pylist()) == users
        pairs = {(u, i) for u, i, _ in window if u in users}
        assert "i999" in {i for _, i in pairs} - {i for _, i, _ in past}
        assert slates.labels.sum() == len(pairs)


# -- the trials ------------------------------------------------------------------------------------------------------

USERS = 60
WEIGHTS = poisson_weights(np.arange(USERS) * 7919, 200)


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int]]:
    """Judges by the width of the list of neighbours: the further from 40 the worse; says what it was asked."""
    seen: list[tuple[float, int]] = []
    noise = np.random.default_rng(0).normal(0, 0.05, USERS)

    def judged(spec: StudySpec, tried: dict, anchor: int) -> Judged:
        seen.append((tried["slate"]["neighbors"], anchor))
        ndcg = 0.5 + noise - abs(tried["slate"]["neighbors"] - 40) / 100
        return Judged(Draws.of(ndcg, WEIGHTS), tried["slate"]["neighbors"] / 100)

    monkeypatch.setattr(study, "judge", judged)
    return seen


def tries(made: StudySpec) -> list:
    return open_study(made).get_trials(deepcopy=False)


def test_the_first_trial_is_of_the_settings_in_use_and_the_best_is_no_worse(tmp_path: Path, judge: list) -> None:
    made = asked(tmp_path)
    study.work(made)
    first, *others = tries(made)
    assert is_as_is(first) and first.params == in_use(made.base.resolved_settings())
    assert not any(is_as_is(trial) for trial in others)
    found = verdict(open_study(made))
    assert len(found.ranked) == 4 and found.as_is.number == 0 and found.lists == USERS
    assert found.best.value == max(trial.value for trial in tries(made)) >= found.as_is.value
    assert found.settled and found.lead.interval.low > 0, "neighbors are 8 in use, and 40 is plainly better"
    assert coverage(found.as_is) == pytest.approx(0.08) and coverage(found.best) > 0.08


def test_a_stopped_study_goes_on_as_if_it_had_not_been(tmp_path: Path, judge: list) -> None:
    once, twice = asked(tmp_path / "a"), asked(tmp_path / "b")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    study.work(once)
    study.work(twice.model_copy(update={"trials": 2}))
    assert len(tries(twice)) == 2
    study.work(twice)
    study.work(twice)
    assert [t.params for t in tries(twice)] == [t.params for t in tries(once)]
    assert len(judge) == 8


def test_what_a_killed_process_left_behind_is_tried_again(tmp_path: Path, judge: list) -> None:
    made = asked(tmp_path, trials=2)
    left = next_trial(open_study(made), made)
    assert left is not None and is_as_is(left)
    forget_abandoned(open_study(made))
    study.work(made)
    assert [(t.state.name, is_as_is(t)) for t in tries(made)] == [("FAIL", True), ("COMPLETE", True), ("COMPLETE", False)]


def test_processes_that_share_a_study_make_no_trial_too_many(tmp_path: Path, judge: list) -> None:
    made = asked(tmp_path, trials=3, parallel=2)
    one, two = open_study(made), open_study(made)
    begun = [next_trial(each, made) for each in (one, two, one, two)]
    assert [trial is not None for trial in begun] == [True, True, True, False]
    assert [trial.number for trial in begun[:3]] == [0, 1, 2]


def test_trials_that_lag_are_stopped_and_marked_so_in_mlflow(tmp_path: Path, judge: list) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    parent = registry.start_run(uri, "tests", str(tmp_path / "artifacts"), "tune")
    made = asked(tmp_path, trials=9, windows=2, run=RunRef(tracking_uri=uri, experiment="tests", run_id=parent))
    study.work(made)
    states = [trial.state for trial in tries(made)]
    pruned = states.count(TrialState.PRUNED)
    assert pruned > 0 and states[0] == TrialState.COMPLETE
    assert judge.count((8, MOMENTS[1])) >= 1 and len(judge) == 2 * 9 - pruned, "one window less for each that was stopped"
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    runs = {r.info.run_name: r for r in client.search_runs([client.get_run(parent).info.experiment_id]) if r.info.run_id != parent}
    assert all(run.data.tags["mlflow.parentRunId"] == parent for run in runs.values())
    expected = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED"}
    assert {name: run.info.status for name, run in runs.items()} == {f"trial {n}": expected[s] for n, s in enumerate(states)}
    first = runs["trial 0"]
    assert first.data.params["slate.neighbors"] == "8"
    steps = client.get_metric_history(first.info.run_id, study.METRIC)
    assert [(m.step, round(m.value, 6)) for m in steps] == [(k, round(tries(made)[0].value, 6)) for k in (0, 1)]
    registry.end_run(uri, parent, {"p_value": 0.5}, {"verdict": "keep"})
    assert client.get_run(parent).info.status == "FINISHED"
    killed = registry.start_run(uri, "tests", str(tmp_path / "artifacts"), "killed")
    left = client.create_run(client.get_run(killed).info.experiment_id, tags={"mlflow.parentRunId": killed}).info.run_id
    registry.fail_run(uri, killed)
    assert {client.get_run(run).info.status for run in (killed, left)} == {"FAILED"}
    assert client.get_run(first.info.run_id).info.status == "FINISHED", "those of other studies are left alone"


def test_settings_that_cannot_be_trained_with_are_a_failed_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(spec: StudySpec, tried: dict, anchor: int) -> Judged:
        raise study.NonFiniteLoss("encoder: loss is nan; lower training.learning_rate")

    monkeypatch.setattr(study, "judge", diverge)
    made = asked(tmp_path, trials=2)
    study.work(made)
    assert [t.state for t in tries(made)] == [TrialState.FAIL] * 2
    with pytest.raises(StudyError, match=r"were not judged.*loss is nan; lower training\.learning_rate"):
        verdict(open_study(made))


def test_a_lead_by_chance_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(2)
    monkeypatch.setattr(study, "judge", lambda *_: Judged(Draws.of(random.random(USERS), WEIGHTS), 0.5))
    made = asked(tmp_path, trials=8)
    study.work(made)
    found = verdict(open_study(made))
    assert found.best.value >= found.as_is.value
    assert not found.settled


def test_time_that_is_over_begins_no_further_trial(tmp_path: Path, judge: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study.Budget, "used", lambda self: 10.0 * len(judge))
    made = asked(tmp_path, max_seconds=15, trials=9)
    study.work(made)
    assert len(tries(made)) == 2


# -- the real thing --------------------------------------------------------------------------------------------------


def test_a_real_study_never_trains_on_what_judges_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list = []
    real = study.train
    monkeypatch.setattr(study, "train", lambda training, *a, **k: told.append(training) or real(training, *a, **k))
    monkeypatch.setattr(search_space, "SPACE", {path: SPACE[path] for path in ("slate.audience", "training.learning_rate")})
    made = world(tmp_path, SHOP).model_copy(update={"trials": 2})
    write_spec(made, tmp_path / "study.json")
    study.main(["--spec", str(tmp_path / "study.json")])
    assert len(told) == 2
    for training in told:
        assert training.as_of_us == HELD_OUT
        assert max(training.anchors_us) + WEEK <= HELD_OUT
    assert told[0].settings == made.base.settings != told[1].settings
    found = verdict(open_study(made))
    assert 0 < coverage(found.as_is) <= 1
    assert 0 < found.as_is.value < 1 and found.lists == len({u for u, _, t in SHOP if t >= HELD_OUT})

