"""Runs a trainer outside Spark and looks after it: started again where it dies or falls silent, so many times and no more.

A training has a folder of its own, named by what it is told: the same command goes on where a killed one was, also after a
restart of the machine, as long as tables, moment and settings are the same. What came before it and was never finished goes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout
from pyspark.sql import SparkSession

from conf.settings import Settings, Training
from jobs.errors import BusyError, ModelGateError
from jobs.failures import THROWN, reason
from jobs.progress import console
from model.gate import recipe
from model.machine.life import Watch, refused
from model.spec import TrainSpec, write_spec

_LOOK_EVERY = 2.0
_LOCK = "lock"
_GROUP = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@contextlib.contextmanager
def training_folder(settings: Settings, spec: TrainSpec, as_of: datetime) -> Iterator[Path]:
    """The folder of this training, held while the block runs and removed when it ends well. Raises BusyError."""
    root = Path(settings.training.checkpoints.format(warehouse=Path(settings.warehouse).absolute()))
    folder = root / f"{as_of:%Y%m%dT%H%M%S}-{_key(spec)}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / _LOCK).acquire(timeout=0):
            for older in sorted(p for p in root.iterdir() if p.name < folder.name):
                with contextlib.suppress(Timeout), FileLock(older / _LOCK).acquire(timeout=0):
                    shutil.rmtree(older, ignore_errors=True)
            yield folder
            shutil.rmtree(folder, ignore_errors=True)
    except Timeout:
        raise BusyError(f"another run trains this model as of {as_of:%Y-%m-%dT%H:%M:%SZ} ({folder}); try again later") from None


def _key(spec: TrainSpec) -> str:
    """Of what decides the weights, and not of where and how fast they are made."""
    asked = spec.model_dump(mode="json", exclude={"output", "checkpoints", "settings"})
    return hashlib.sha256(json.dumps([asked, recipe(spec.resolved_settings())], sort_keys=True).encode()).hexdigest()[:16]


def run_trainer(spec: TrainSpec, training: Training, folder: Path, spark: SparkSession | None = None) -> None:
    """Train until it is done. Raises ModelGateError with the trainer's own last word when no try is left.

    ``spark`` is asked for executors where ``training.launcher`` says so; ``folder`` must be one that they see.
    """
    write_spec(spec, folder / "spec.json")
    signs = folder / "signs"
    told = ["--spec", str(folder / "spec.json"), "--signs", str(signs)]
    for left in range(training.restarts, -1, -1):
        shutil.rmtree(signs, ignore_errors=True)
        watch = Watch(signs, training.silence.total_seconds())
        try:
            if training.launcher == "spark" and spark is not None:
                return _on_executors(spark, told, training.processes, watch)
            return _here(told, training, folder, watch)
        except ModelGateError as error:
            if not left or refused(signs):
                raise
            console.print(f"  {error}; it is started again ({left} more time(s))", markup=False)


def _here(told: list[str], training: Training, folder: Path, watch: Watch) -> None:
    """Processes of this machine, which end when this one does: under torchrun, where there is more than one to bring together."""
    command = [sys.executable, "-m", "model.train", *told, "--supervisor", str(os.getpid())]
    if training.processes > 1:
        group = ["--standalone", "--nproc-per-node", str(training.processes), "--log-dir", str(folder / "logs")]
        command[1:1] = ["-m", "torch.distributed.run", *group]
    follow("train", command, training.threads, training.processes, watch)


def _on_executors(spark: SparkSession, told: list[str], processes: int, watch: Watch) -> None:
    """Processes on Spark's executors, a GPU each where executors have them (TorchDistributor)."""
    from pyspark.ml.torch.distributor import TorchDistributor

    context, group = spark.sparkContext, "kairos-train"
    gpu = int(context.getConf().get("spark.executor.resource.gpu.amount", "0")) > 0
    context.setJobGroup(group, "train", interruptOnCancel=True)
    distributor = TorchDistributor(num_processes=processes, local_mode=(context.master or "").startswith("local"), use_gpu=gpu)
    try:
        with _watched(watch, lambda: context.cancelJobGroup(group)):
            distributor.run(entry, told)
    except (RuntimeError, *THROWN) as error:
        raise ModelGateError(f"model.train on Spark's executors failed: {reason(error)[:300]}") from error
    finally:
        context.setLocalProperty("spark.jobGroup.id", "")


def entry(told: list[str]) -> None:
    """What each process of TorchDistributor runs."""
    from model.train import main

    main(told)


def follow(name: str, command: list[str], threads: int, processes: int, watch: Watch | None = None) -> None:
    """Run a trainer with its part of the cores and show what it says. Raises ModelGateError with its own last word.

    ``threads`` of each of ``processes``; 0: all cores, divided. The lines that count begin with ``name``. ``watch``: a process
    that falls silent is killed with all others.
    """
    threads = threads or max(1, (os.cpu_count() or 1) // processes)
    # A group that this process itself may be of is not the trainer's: torchrun tells it its own.
    environment = {name: value for name, value in os.environ.items() if name not in _GROUP} | {
        "OMP_NUM_THREADS": str(threads),
        # Threads that wait for each other must not burn the cores that they wait for.
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    told, silent = "", ""
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process, _watched(watch) as found:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        for line in process.stdout:
            console.print(f"    {line.rstrip()}", markup=False)
            if line.startswith(f"{name}: ") or not told.startswith(f"{name}: "):
                told = line.strip() or told
        process.wait()
        silent = "".join(f"; {rank} gave no sign for {watch.silence:g} s and was killed" for rank in found if watch is not None)
    if process.returncode:
        raise ModelGateError(f"{name} ended with exit code {process.returncode}; its last word: {told}{silent}")


@contextlib.contextmanager
def _watched(watch: Watch | None, stop: Callable[[], None] = lambda: None) -> Iterator[list[str]]:
    """Look for silence while the block runs; once one is silent, kill all that run here, and ``stop``. Yields who was silent."""
    found: list[str] = []
    over = threading.Event()

    def work() -> None:
        while watch is not None and not over.wait(_LOOK_EVERY):
            rank = watch.silent()
            if rank is not None:
                found.append(rank)
                for process in watch.processes().values():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
                stop()
                return

    looker = threading.Thread(target=work, daemon=True)
    looker.start()
    try:
        yield found
    finally:
        over.set()
        looker.join()
