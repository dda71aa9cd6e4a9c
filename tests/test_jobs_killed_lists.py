"""Scoring, publishing or vacuum that dies anywhere and is run again: the lists equal those of the undisturbed run, and no reader ever sees a mix."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import killed_lists as killed
import pytest
import shop
import stub_lists
import yaml
from deltalake import DeltaTable

from features.contracts import RECOMMENDATIONS, RECOMMENDATIONS_LATEST
from jobs.maintain import Care, maintain
from jobs.score import score

pytestmark = [pytest.mark.spark, pytest.mark.slow]
ROOT = Path(__file__).parents[1]


class PowerCut(BaseException):
    """Not an Exception: nothing on the way may catch it."""


def cut() -> None:
    raise PowerCut


@pytest.fixture(scope="module")
def first(built_shop, tmp_path_factory):
    """The lists of one night."""
    context = shop.copied(built_shop, tmp_path_factory.mktemp("first"))
    with stub_lists.scoring("first"):
        score(replace(context, as_of=shop.NIGHT, mode="nightly"))
    return context


def before(context, what):
    """What must have happened before it runs. Vacuum needs a night that was run again, for files that nothing needs in both tables."""
    for _ in range({killed.NIGHT: 0, killed.HOUR: 1, "vacuum": 2}[what]):
        killed.go(context, killed.NIGHT)


@pytest.fixture(scope="module")
def undisturbed(first, tmp_path_factory):
    """State after the night, and after its hour; vacuum changes nothing."""
    context = shop.copied(first, tmp_path_factory.mktemp("undisturbed"))
    after = {}
    for what in (killed.NIGHT, killed.HOUR):
        killed.go(context, what)
        after[what] = killed.state(context)
    assert after[killed.NIGHT] != after[killed.HOUR]
    return after | {"vacuum": after[killed.NIGHT]}


def test_a_night_cut_before_it_is_shown_is_on_record_only_and_is_made_good(first, tmp_path, undisturbed):
    context = shop.copied(first, tmp_path)
    old = killed.state(context)
    with pytest.raises(PowerCut), killed.dying(context, "before the night is shown", cut) as what:
        killed.go(context, what)
    half = killed.state(context)
    assert half[RECOMMENDATIONS_LATEST.name] == old[RECOMMENDATIONS_LATEST.name]
    assert half[RECOMMENDATIONS.name] == undisturbed[killed.NIGHT][RECOMMENDATIONS.name]
    killed.go(context, killed.NIGHT)
    assert killed.state(context) == undisturbed[killed.NIGHT]


@pytest.mark.soak
@pytest.mark.parametrize("delay", killed.DELAYS)
@pytest.mark.parametrize("place", killed.PLACES)
def test_a_killed_process_leaves_whole_lists_and_one_plain_run_mends_the_rest(first, tmp_path, undisturbed, place, delay):
    context = shop.copied(first, tmp_path)
    what = killed.PLACES[place][0]
    before(context, what)
    file, stop = tmp_path / "shop.yaml", tmp_path / "stop"
    file.write_text(yaml.safe_dump(context.settings.resolved()))
    script, env = str(Path(killed.__file__)), os.environ | {"PYTHONPATH": str(ROOT)}
    table = context.warehouse.path(RECOMMENDATIONS_LATEST)
    with subprocess.Popen([sys.executable, script, "read", table, str(stop)], env=env, stdout=subprocess.PIPE, text=True) as reader:
        done = subprocess.run([sys.executable, script, "run", str(file), place, str(delay)], env=env, capture_output=True, check=False, start_new_session=True)
        context = shop.context(context.spark, context.settings)
        killed.go(context, what)
        stop.touch()
        seen = json.loads(reader.communicate()[0])
    assert done.returncode == -9, done.stderr[-2000:]
    assert seen["wrong"] == [] and seen["looks"] > 20, seen
    assert seen["batches"] >= (1 if what == "vacuum" else 2), seen
    assert killed.state(context) == undisturbed[what]
    for care in (Care.optimize, Care.vacuum):
        maintain(shortly(context), care, names=[RECOMMENDATIONS_LATEST.name, RECOMMENDATIONS.name])
    assert killed.state(context) == undisturbed[what]
    assert files(context) == live_files(context), "something is left behind"


def shortly(context):
    """Settings with which vacuum deletes whatever no version needs."""
    kept = context.settings.maintenance.model_copy(update={"vacuum_retention": timedelta(seconds=1)})
    time.sleep(1.1)
    return replace(context, settings=context.settings.model_copy(update={"maintenance": kept}))


def files(context):
    """Data files on disk of the lists."""
    folders = [Path(context.warehouse.path(t)) for t in (RECOMMENDATIONS, RECOMMENDATIONS_LATEST)]
    return {str(p) for folder in folders for p in folder.rglob("*.parquet") if "_delta_log" not in p.parts}


def live_files(context):
    """Those that the newest versions are made of."""
    tables = [context.warehouse.path(t) for t in (RECOMMENDATIONS, RECOMMENDATIONS_LATEST)]
    return {name.removeprefix("file://") for table in tables for name in DeltaTable(table).file_uris()}
