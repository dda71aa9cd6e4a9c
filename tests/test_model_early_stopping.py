"""The ranker sees everyone as often as was best at the newest anchor, for rankers that knew nothing of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from model_world import START, settings, shop, spec, write_tables

from model import train
from model.as_of.item_state import DAY_US
from model.machine.distributed import World
from model.spec import TrainSpec
from model.training.budget import Budget
from model.training.early_stopping import _more_and_more
from model.training.ranker_training import NETWORK, AnchorSlates, RankerTrainer

DAYS = 32, 39, 43, 46
MOMENTS = [START + day * DAY_US for day in (*DAYS, 53)]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopping")
    write_tables(folder, shop(users=24, items=40), MOMENTS, 7 * DAY_US)
    return folder


def told(tables: Path, moments: list[int], **training: object) -> TrainSpec:
    torch.set_num_threads(1)
    plain = {"retrieval_epochs": 1, "epochs": 1, "ranker_epochs": 4, "early_stopping": True, "threads": 1, "negatives": 32}
    return spec(tables, moments, settings(training=plain | training), tables / "bundle")


def judged_by(monkeypatch: pytest.MonkeyPatch, ndcg: dict[int, float]) -> list[tuple[str, list[int], int]]:
    """Rehearsals find what they are told; returns (network, days of its anchors, passes) of each training of a ranker."""
    known: list[tuple[str, list[int], int]] = []
    fit = RankerTrainer.fit

    def recorded(self: RankerTrainer, anchors: list[AnchorSlates], epochs: int, phase: int) -> list[float]:
        known.append((self.name, [(a.moment.state.as_of_us - START) // DAY_US for a in anchors], epochs))
        return fit(self, anchors, epochs, phase)

    monkeypatch.setattr(RankerTrainer, "fit", recorded)
    monkeypatch.setattr(RankerTrainer, "ndcg", lambda self, anchor, k=10: ndcg[known[-1][2]])
    return known


@pytest.mark.parametrize(("ndcg", "tried", "best"), [
    ({1: 0.1, 2: 0.2, 4: 0.3}, [1, 2, 4], 4), ({1: 0.1, 2: 0.2, 4: 0.15}, [1, 2, 4], 2), ({1: 0.2, 2: 0.1}, [1, 2], 1), ({1: 0.2, 2: 0.2, 4: 0.2}, [1, 2, 4], 1),
])  # fmt: skip
def test_passes_are_added_while_they_pay(tables: Path, monkeypatch: pytest.MonkeyPatch, ndcg: dict[int, float], tried: list[int], best: int) -> None:
    known = judged_by(monkeypatch, ndcg)
    trained = train.train(told(tables, MOMENTS), World(0, 1), tell=False)
    *rehearsals, last = known
    # The window of day 43 had not ended at day 46: whoever learned from it would know what is judged.
    assert rehearsals == [(f"rehearsal-{n}", [32, 39], passes) for n, passes in enumerate(tried)]
    assert last == (NETWORK, list(DAYS), best)
    told_of = trained.history["ranker"]
    assert told_of["rehearsed"] == {str(passes): ndcg[passes] for passes in tried} and len(told_of["loss"]) == best


def test_it_ends_as_a_training_of_so_many_passes(tables: Path) -> None:
    stopped = train.train(told(tables, MOMENTS), World(0, 1), tell=False)
    rehearsed = {int(passes): ndcg for passes, ndcg in stopped.history["ranker"]["rehearsed"].items()}
    best = max(rehearsed, key=lambda passes: (rehearsed[passes], -passes))
    plain = train.train(told(tables, MOMENTS, early_stopping=False, epochs=best, ranker_epochs=best), World(0, 1), tell=False)
    assert plain.history["ranker"]["rehearsed"] is None
    theirs = plain.ranker.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in stopped.ranker.state_dict().items())


def test_one_anchor_says_that_it_is_too_few(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = train.train(told(tables, MOMENTS[-2:]), World(0, 1))
    assert "early stopping needs an anchor whose window ended by the newest one" in capsys.readouterr().out
    assert trained.history["ranker"]["rehearsed"] is None and len(trained.history["ranker"]["loss"]) == 4


def test_no_more_passes_than_the_settings_allow(tables: Path) -> None:
    class Told:
        settings = settings(training={"epochs": 10, "ranker_epochs": 9})

    assert list(_more_and_more(Told())) == [1, 2, 4, 8]  # type: ignore[arg-type]


def test_time_that_is_over_ends_the_rehearsals(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Budget, "used", lambda self: 10.0)
    trained = train.train(told(tables, MOMENTS, max_seconds=9), World(0, 1), tell=False)
    found = trained.history["ranker"]["rehearsed"]
    assert trained.history["stopped_by_max_seconds"] == 1 and list(found) == ["1"] and len(trained.history["ranker"]["loss"]) == 1
