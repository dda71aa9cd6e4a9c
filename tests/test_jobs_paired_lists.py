"""Fifty nights and hours that run at the same time: one waits its turn, a reader sees whole lists all along, and nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import killed_lists as killed
import paired_lists as paired
import pytest
import shop
import stub_lists
import yaml

from features.contracts import RECOMMENDATIONS_LATEST
from jobs.maintain import Care, maintain
from jobs.score import score

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.soak, pytest.mark.timeout(7200)]
ROOT = Path(__file__).parents[1]
ROUNDS = 50


def test_pairs_of_a_night_and_an_hour_leave_the_lists_of_one_after_the_other(built_shop, tmp_path):
    context = shop.copied(built_shop, tmp_path)
    with stub_lists.scoring("first"):
        score(replace(context, as_of=shop.NIGHT, mode="nightly"))
    alone = shop.copied(context, tmp_path / "alone")
    file, stop, meeting = tmp_path / "shop.yaml", tmp_path / "stop", tmp_path / "meeting"
    file.write_text(yaml.safe_dump(context.settings.resolved()))
    meeting.mkdir()
    env, table = os.environ | {"PYTHONPATH": str(ROOT)}, context.warehouse.path(RECOMMENDATIONS_LATEST)
    read = [sys.executable, killed.__file__, "read", table, str(stop)]
    with subprocess.Popen(read, env=env, stdout=subprocess.PIPE, text=True) as reader:
        pair = [
            subprocess.Popen([sys.executable, paired.__file__, mode, str(file), str(meeting), str(ROUNDS)], env=env, stderr=subprocess.PIPE, text=True)
            for mode in paired.MOMENTS
        ]
        errors = [one.communicate()[1] for one in pair]
        stop.touch()
        seen = json.loads(reader.communicate()[0])
    assert [one.returncode for one in pair] == [0, 0], [error[-2000:] for error in errors]
    told = [(meeting / f"told {number} {mode}").read_text() for number in range(ROUNDS) for mode in paired.MOMENTS]
    print({word: told.count(word) for word in set(told)}, seen)
    assert set(told) == {"ok", "busy"}, "they never met, or one was turned away for good"
    assert seen["wrong"] == [] and seen["looks"] > ROUNDS and seen["batches"] > ROUNDS, seen
    for mode in paired.MOMENTS:
        assert paired.one_round(alone, mode, ROUNDS - 1) == "ok"
    context = shop.context(context.spark, context.settings)
    assert killed.state(context) == killed.state(alone)
    for care in (Care.optimize, Care.vacuum):
        maintain(context, care, names=[RECOMMENDATIONS_LATEST.name])
    assert killed.state(context) == killed.state(alone)
