"""Runs a command and tells how long it took and how much memory its whole process tree held at most."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

SECONDS = "seconds of work: "


@dataclass(frozen=True)
class Measured:
    """``work``: what the command says of its own work, without start-up. ``peak_gib``: PSS of the tree, sampled twice a second.

    ``cpu_s``: seconds of processor that the tree took, start-up included: what other work on the machine disturbs least.
    """

    work: dict[str, float]
    wall: float
    peak_gib: float
    cpu_s: float


def tell(**seconds: float) -> None:
    """Say, in the measured command, how long the parts of its work took."""
    print(SECONDS + json.dumps(seconds), flush=True)


def measure(*command: str | Path) -> Measured:
    """Run a Python script with arguments. Raises RuntimeError with its output when it fails."""
    began, peak, took = time.monotonic(), 0, {}
    # Into a file: a pipe that nobody empties would stop a child that says much.
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen([sys.executable, *map(str, command)], stdout=said, stderr=subprocess.STDOUT, text=True)
        tree = psutil.Process(child.pid)
        while child.poll() is None:
            held = 0
            with contextlib.suppress(psutil.Error):
                for process in [tree, *tree.children(recursive=True)]:
                    with contextlib.suppress(psutil.Error):
                        held += process.memory_full_info().pss
                        times = process.cpu_times()
                        took[process.pid] = times.user + times.system
            peak = max(peak, held)
            time.sleep(0.5)
        said.seek(0)
        lines = said.read().splitlines()
    if child.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {child.returncode}:\n" + "\n".join(lines[-30:]))
    told = [json.loads(line.removeprefix(SECONDS)) for line in lines if line.startswith(SECONDS)]
    return Measured({k: v for one in told for k, v in one.items()}, time.monotonic() - began, peak / 2**30, sum(took.values()))
