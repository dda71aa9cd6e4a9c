"""The trainer's supervisor: killed, stopped and hopeless trainers, each a process of its own. No Spark."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from filelock import FileLock
from model_world import START, settings, shop, spec, write_tables

from jobs.errors import BusyError, ModelGateError
from jobs.training.trainer import follow, run_trainer, training_folder
from model.as_of.item_state import DAY_US
from model.machine.life import Watch, live
from model.spec import TrainSpec
from model.versions import checkpoint

pytestmark = pytest.mark.slow
MOMENTS = [START + day * DAY_US for day in (39, 46, 53)]
AS_OF = datetime(2026, 1, 31, tzinfo=UTC)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trainer")
    write_tables(folder, shop(users=24, items=40), MOMENTS, 7 * DAY_US)
    return folder


def told(tables: Path, folder: Path, **training: object) -> TrainSpec:
    plain = {"anchors": 2, "batch_users": 4, "negatives": 32, "threads": 1, "checkpoint_every": "1s", "checkpoint_steps": 10}
    made = settings(model={"width": 16, "dropout": 0.2}, training=plain | training)
    folder.mkdir(exist_ok=True)
    return spec(tables, MOMENTS, made, folder / "bundle").model_copy(update={"checkpoints": str(folder)})


def trained(asked: TrainSpec, folder: Path) -> dict[str, bytes]:
    run_trainer(asked, asked.resolved_settings().training, folder)
    return {name: (folder / "bundle" / name).read_bytes() for name in (checkpoint.WEIGHTS, checkpoint.HISTORY)}


def ranks(folder: Path) -> dict[str, int]:
    """Processes that gave a sign."""
    watch = Watch(folder / "signs", 60)
    with contextlib.suppress(FileNotFoundError):
        watch.silent()
    return watch.processes()


def on_life(folder: Path, harm, most: int) -> tuple[threading.Event, threading.Thread, list[int]]:
    """Call ``harm`` with each new process of rank 0 that appears, ``most`` times."""
    over, met = threading.Event(), []

    def work() -> None:
        while not over.wait(0.05) and len(met) < most:
            process = ranks(folder).get("rank-0")
            if process and process not in met:
                met.append(process)
                harm(process)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return over, thread, met


def killed_at_random(tables: Path, folder: Path, times: int, seconds: float) -> tuple[dict[str, bytes], int]:
    """The trained model, while its process is killed up to ``seconds`` after it began each of its first lives; and how often it was."""
    chance, killed = random.Random(folder.name), []

    def harm(process: int) -> None:
        time.sleep(chance.uniform(0, seconds))
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
            killed.append(process)

    over, thread, _ = on_life(folder, harm, times)
    found = trained(told(tables, folder, restarts=times), folder)
    over.set()
    thread.join()
    return found, len(killed)


@pytest.fixture(scope="module")
def undisturbed(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    folder = tmp_path_factory.mktemp("undisturbed")
    tick = time.monotonic()
    return trained(told(tables, folder), folder), time.monotonic() - tick


@pytest.mark.parametrize("times", [2, pytest.param(20, marks=pytest.mark.soak)])
def test_a_trainer_killed_at_random_moments_ends_in_the_same_bits(tables, undisturbed, tmp_path, capfd, times) -> None:
    whole, seconds = undisturbed
    kills, said = 0, ""
    for training in range(2 * times):  # a life that goes on from a late step may be over before its kill
        found, killed = killed_at_random(tables, tmp_path / f"{training}", times - kills, seconds / 2)
        assert found == whole
        told_now = capfd.readouterr().out
        assert told_now.count("it is started again") == killed
        kills, said = kills + killed, said + told_now
        if kills == times:
            break
    assert kills == times and "goes on from step" in said


@pytest.mark.parametrize("silence", ["5s", pytest.param("40s", marks=pytest.mark.soak)])
def test_a_stopped_process_is_found_and_the_training_goes_on(tables, tmp_path, capfd, silence) -> None:
    stopped_for: list[float] = []

    def stop(_: int) -> None:
        while not (any(tmp_path.glob("step-*")) and "rank-1" in ranks(tmp_path)):
            time.sleep(0.05)
        process, tick = ranks(tmp_path)["rank-1"], time.monotonic()
        os.kill(process, signal.SIGSTOP)
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.kill(process, 0)
                time.sleep(0.1)
        stopped_for.append(time.monotonic() - tick)

    over, thread, _ = on_life(tmp_path, stop, 1)
    asked = told(tables, tmp_path, processes=2, silence=silence)
    run_trainer(asked, asked.resolved_settings().training, tmp_path)
    over.set()
    thread.join()
    said = capfd.readouterr().out
    assert f"rank-1 gave no sign for {int(silence[:-1])} s and was killed" in said and "goes on from step" in said
    assert stopped_for[0] < 60, f"it was gone {stopped_for[0]:.0f} s after it was stopped"
    checkpoint.load(tmp_path / "bundle")


def test_a_trainer_that_always_dies_is_started_so_often_and_no_more(tables, tmp_path, capfd) -> None:
    asked = told(tables, tmp_path, restarts=1).model_copy(update={"checkpoints": str(tmp_path / "no-folder")})
    (tmp_path / "no-folder").write_text("a file where the trainer wants a folder")
    with pytest.raises(ModelGateError, match=r"train ended with exit code 1"):
        run_trainer(asked, asked.resolved_settings().training, tmp_path)
    assert capfd.readouterr().out.count("it is started again") == 1


def test_what_would_end_alike_each_time_is_not_tried_again(tables, tmp_path, capfd) -> None:
    asked = told(tables, tmp_path, learning_rate=1e30)
    with pytest.raises(ModelGateError, match=r"encoder: loss is (nan|inf) \(phase 0, epoch 0, step \d+\); lower training.learning_rate"):
        run_trainer(asked, asked.resolved_settings().training, tmp_path)
    assert "started again" not in capfd.readouterr().out


def test_a_group_that_the_job_is_of_is_not_the_trainers(monkeypatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "7")
    code = "from model.machine.distributed import join_world; world = join_world(); raise SystemExit((world.rank, world.size) != (0, 1))"
    follow("train", [sys.executable, "-c", code], 1, 1)


def test_a_process_without_its_supervisor_ends(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as supervisor:
        code = f"import time; from pathlib import Path; from model.machine.life import live; live(Path({str(tmp_path)!r}), {supervisor.pid}); time.sleep(60)"
        with subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[1]) as trainer:
            while not ranks_in(tmp_path):
                assert trainer.poll() is None
                time.sleep(0.05)
            assert trainer.poll() is None
            supervisor.kill()
            supervisor.wait()
            assert trainer.wait(timeout=10) == 1


def ranks_in(folder: Path) -> list[Path]:
    return [p for p in folder.glob("rank-*") if not p.suffix]


def test_silence_is_told_from_slowness(tmp_path: Path) -> None:
    live(tmp_path)
    watch = Watch(tmp_path, 3)
    for _ in range(12):
        time.sleep(0.4)
        assert watch.silent() is None
    (tmp_path / "rank-7").write_text("elsewhere 1 1")
    assert watch.silent() is None
    time.sleep(3.2)
    assert watch.silent() == "rank-7" and set(watch.processes().values()) == {os.getpid()}


def test_a_training_has_its_folder_for_itself_and_the_same_one_next_time(tables, tmp_path) -> None:
    chosen = settings(warehouse=str(tmp_path))
    asked = spec(tables, MOMENTS, chosen, tmp_path / "x")
    older = tmp_path / ".training" / "20260130T000000-0123"
    held = tmp_path / ".training" / "20260130T000000-4567"
    for path in (older, held):
        path.mkdir(parents=True)
    with FileLock(held / "lock"), contextlib.suppress(KeyboardInterrupt), training_folder(chosen, asked, AS_OF) as first:
        assert not older.exists() and held.exists()
        with pytest.raises(BusyError, match="another run trains"), training_folder(chosen, asked, AS_OF):
            pass
        (first / "step-1").mkdir()
        raise KeyboardInterrupt
    elsewhere = spec(tables, MOMENTS, settings(warehouse=str(tmp_path), training={"threads": 7, "processes": 2}), tmp_path / "y")
    with training_folder(chosen, elsewhere, AS_OF) as second:
        assert second == first and (second / "step-1").exists()
    assert not first.exists()
    other = spec(tables, MOMENTS, settings(warehouse=str(tmp_path), training={"epochs": 9}), tmp_path / "y")
    with training_folder(chosen, other, AS_OF) as third:
        assert third != first


@pytest.mark.spark
def test_spark_may_start_the_processes(spark, tables, tmp_path, undisturbed, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    asked = told(tables, tmp_path, launcher="spark")
    run_trainer(asked, asked.resolved_settings().training, tmp_path, spark)
    assert (tmp_path / "bundle" / checkpoint.WEIGHTS).read_bytes() == undisturbed[0][checkpoint.WEIGHTS]


@pytest.mark.soak
@pytest.mark.spark
def test_what_fails_on_sparks_executors_is_told(spark, tables, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
    broken = told(tables, tmp_path, launcher="spark", learning_rate=1e30)
    with pytest.raises(ModelGateError, match="on Spark's executors failed"):
        run_trainer(broken, broken.resolved_settings().training, tmp_path, spark)
