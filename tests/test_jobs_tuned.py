"""What a tuning hands to a person: a settings file that loads and follows the advice, and a sentence that does not boast."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from model_world import START, settings, spec
from optuna.trial import TrialState, create_trial

from conf.load import load
from jobs.progress import console
from jobs.training import tuned
from model.as_of.item_state import DAY_US
from model.metrics import Difference, Interval
from model.spec import StudySpec
from model.tuning.search_space import in_use, space
from model.tuning.study_record import Verdict

MINE = """
domain: world
source: {events: {path: x, columns: {user_id: u, item_id: i, event_ts: t}}}
slate: {retrieved: 10, repeats: 10, trending: 4, released: 4, neighbors: 8}
model: {width: 16, dropout: 0.0}
"""
AS_OF = datetime(2026, 1, 31, tzinfo=UTC)


def trial(number: int, value: float, coverage: float = 0.03, **changes: object):
    made = settings()
    params = in_use(made) | {path.replace("__", "."): new for path, new in changes.items()}
    found = create_trial(
        state=TrialState.COMPLETE, value=value, params=params, distributions=space(made), user_attrs={"windows": [value, value], "coverage": coverage}
    )
    found.number = number
    return found


def verdict(low: float, p: float = 0.01) -> Verdict:
    as_is, best = trial(0, 0.31), trial(7, 0.32, training__learning_rate=0.00312345, slate__audience=7)
    lead = Difference(0.01, Interval(low, 0.02), 0.01)
    return Verdict(as_is, (best, as_is), 1234, lead, p, pruned=3, failed=1)


@pytest.fixture
def study(tmp_path: Path) -> StudySpec:
    base = spec(tmp_path, [START + day * DAY_US for day in (25, 32, 39, 46)], settings(), tmp_path)
    return StudySpec(base=base, windows=2, trials=20, journal="journal")


def file(found: Verdict, study: StudySpec, folder: Path) -> Path:
    (folder / "mine.yaml").write_text(MINE)
    path = folder / "elsewhere" / "world.yaml"
    path.parent.mkdir()
    path.write_text(tuned.settings_text(found, study, settings(), folder / "mine.yaml", AS_OF))
    return path


def test_a_lead_that_is_more_than_chance_is_settings_that_load(study: StudySpec, tmp_path: Path) -> None:
    path = file(verdict(low=0.004), study, tmp_path)
    old, new = load(tmp_path / "mine.yaml", {}), load(path, {})
    assert (new.training.learning_rate, new.slate.audience) == (0.00312, 7)
    assert new.model_copy(update={"training": old.training, "slate": old.slate}) == old
    assert new.slate.neighbors == 8, "what was not changed is not in the way of the file that is extended"
    text = path.read_text()
    assert "neighbors" not in text
    for told in ("take its settings", "2020-10-15T00:00Z, 2020-10-22T00:00Z", "1,234 lists", "0.3100", "0.3200", "[+0.0040, +0.0200]", "p 0.010"):
        assert told in text


@pytest.mark.parametrize(("low", "p"), [(-0.004, 0.01), (0.004, 0.2)], ids=["interval holds 0", "best of many"])
def test_a_lead_that_may_be_chance_changes_nothing(study: StudySpec, tmp_path: Path, low: float, p: float) -> None:
    path = file(verdict(low, p), study, tmp_path)
    assert load(path, {}) == load(tmp_path / "mine.yaml", {})
    text = path.read_text()
    assert "keep the settings, the lead may be chance" in text
    assert ("its interval holds 0" in text) == (low < 0)
    assert "#     learning_rate: 0.00312" in text, "what was best is not lost"


def test_a_lead_that_shows_less_of_the_catalogue_is_told_with_its_price(study: StudySpec, tmp_path: Path) -> None:
    found = verdict(low=0.004)
    for coverage, narrow in ((0.017, True), (0.028, False)):
        best = trial(7, 0.32, coverage, slate__audience=7)
        said = tuned.said(Verdict(found.as_is, (best, found.as_is), 1234, found.lead, 0.01, 3, 1))
        assert "take its settings" in said and ("coverage@10 0.017 where it is 0.030" in said) == narrow
    assert "Coverage@10 with the settings in use 0.030, with the best 0.030" in file(found, study, tmp_path).read_text()


def test_nothing_better_and_too_few_lists_are_said(study: StudySpec) -> None:
    as_is = trial(0, 0.31)
    assert "nothing tried is better" in tuned.said(Verdict(as_is, (as_is,), 50, None, 1.0, 0, 0))
    few = Verdict(as_is, (trial(1, 0.4, slate__audience=7), as_is), 5, None, 1.0, 0, 0)
    assert "too few lists" in tuned.said(few) and not few.settled


def test_the_table_shows_the_best_and_the_settings_in_use(study: StudySpec) -> None:
    as_is = trial(0, 0.1)
    better = [trial(n, 0.4 - n / 100, slate__audience=n) for n in range(1, 8)]
    found = Verdict(as_is, (*better, as_is), 50, Difference(0.3, Interval(0.2, 0.4), 0.01), 0.01, 0, 0)
    with console.capture() as said:
        tuned.show(found, study, settings())
    lines = [line for line in said.get().splitlines() if "0." in line and "│" in line]
    assert len(lines) == 6 and "audience 1" in lines[0] and "the settings in use" in lines[-1]
    assert np.all(["0.3900" in lines[0], "0.1000" in lines[-1]])
