"""Killed between any two writes and run again: the tables equal those of the undisturbed run.

``make soak`` kills a process of its own with SIGKILL after each commit of ingest and features; here ingest alone is cut, in this
process, at one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import killed
import pytest

pytestmark = [pytest.mark.spark, pytest.mark.slow]


class PowerCut(BaseException):
    """Not an Exception: nothing on the way may catch it."""


def cut_at(last: int):
    def committed(n: int) -> None:
        if n >= last:
            raise PowerCut

    return committed


@pytest.fixture(scope="module")
def undisturbed(spark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    killed.files(folder)
    commits = []
    context = killed.chain(spark, folder, commits.append)
    assert len(commits) == killed.COMMITS, "the chain has other commits than the tests kill after: mend COMMITS"
    found = killed.state(context)
    assert set(found) == {table.name for table in killed.TABLES}
    return found


def test_a_cut_ingest_that_is_run_again_equals_the_undisturbed_one(spark, tmp_path):
    whole, cut, commits = tmp_path / "whole", tmp_path / "cut", []
    for folder in (whole, cut):
        killed.files(folder)
    undisturbed = killed.state(killed.chain(spark, whole, commits.append, features=False))
    assert undisturbed["events"] and undisturbed["events_rejected"]
    with pytest.raises(PowerCut):  # the hour's events and rejected rows are written, and not on record
        killed.chain(spark, cut, cut_at(len(commits) - 1), features=False)
    assert killed.state(killed.chain(spark, cut, lambda n: None, features=False)) == undisturbed


@pytest.mark.soak
@pytest.mark.parametrize("last", range(1, killed.COMMITS + 1))
def test_a_killed_process_that_is_run_again_leaves_what_the_undisturbed_one_leaves(spark, tmp_path, undisturbed, last):
    killed.files(tmp_path)
    command = [sys.executable, str(Path(killed.__file__)), str(tmp_path), str(last)]
    root = str(Path(killed.__file__).parents[1])
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": root}, capture_output=True, check=False)
    assert done.returncode == -9, done.stderr[-2000:]
    assert killed.state(killed.chain(spark, tmp_path, lambda n: None)) == undisturbed
