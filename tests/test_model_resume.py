"""A training that is cut at any step goes on where it was, and ends in the weights of the undisturbed one, to the bit."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from model_world import START, settings, shop, spec, write_tables

from model import train
from model.as_of.item_state import DAY_US
from model.machine.distributed import World
from model.spec import TrainSpec
from model.training import checkpoints
from model.training.checkpoints import Checkpoints, DamagedCheckpoint
from model.training.trained import Trained

MOMENTS = [START + day * DAY_US for day in (39, 46, 53)]
ALONE = World(0, 1)


class Cut(BaseException):
    """Not an Exception: nothing on the way may catch it."""


@pytest.fixture(autouse=True)
def _quick() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    write_tables(folder, shop(users=24, items=40), MOMENTS, 7 * DAY_US)
    return folder


def told(tables: Path, kept: Path | None, **training: object) -> TrainSpec:
    plain = {"anchors": 2, "batch_users": 8, "negatives": 32, "epochs": 2, "ranker_steps": 10, "threads": 1, "checkpoint_every": "1h", "checkpoint_steps": 1}
    made = settings(model={"width": 16, "dropout": 0.2}, training=plain | training)
    return spec(tables, MOMENTS, made, tables / "bundle").model_copy(update={"checkpoints": None if kept is None else str(kept)})


def state(trained: Trained) -> dict[str, torch.Tensor]:
    return {**trained.encoder.state_dict(prefix="e."), **trained.ranker.state_dict(prefix="r.")}


def same(one: Trained, two: Trained) -> bool:
    mine, theirs = state(one), state(two)
    return mine.keys() == theirs.keys() and all(torch.equal(v, theirs[k]) for k, v in mine.items())


def cut_at(monkeypatch: pytest.MonkeyPatch, cut: Callable[[int], bool]) -> None:
    original = Checkpoints.after_step

    def after_step(self: Checkpoints, progress) -> None:
        original(self, progress)
        if cut(progress.steps):
            raise Cut

    monkeypatch.setattr(Checkpoints, "after_step", after_step)


@pytest.fixture(scope="module")
def whole(tables: Path) -> tuple[Trained, int]:
    """The undisturbed training, and its number of steps."""
    with pytest.MonkeyPatch.context() as patch:
        torch.set_num_threads(1)
        steps: list[int] = []
        cut_at(patch, lambda n: bool(steps.append(n)))
        trained = train.train(told(tables, tables / "whole"), ALONE, tell=False)
        assert same(trained, train.train(told(tables, None), ALONE, tell=False))
    return trained, steps[-1]


def test_row_sparse_tables_go_on_too(tables, tmp_path, monkeypatch) -> None:
    whole = train.train(told(tables, None, sparse_rows=1), ALONE, tell=False)
    for n, at in enumerate((5, 15)):
        with monkeypatch.context() as patch, pytest.raises(Cut):
            cut_at(patch, lambda step, at=at: step == at)
            train.train(told(tables, tmp_path / str(n), sparse_rows=1), ALONE, tell=False)
        assert same(train.train(told(tables, tmp_path / str(n), sparse_rows=1), ALONE, tell=False), whole)


def test_early_stopping_goes_on_too(tables, tmp_path, monkeypatch) -> None:
    chosen = {"early_stopping": True, "ranker_epochs": 4, "retrieval_epochs": 1, "epochs": 1}
    of_steps: dict[int, int] = {}

    def noted(self: Checkpoints, progress) -> None:
        of_steps[progress.steps] = progress.phase

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "after_step", noted)
        whole = train.train(told(tables, tmp_path / "whole", **chosen), ALONE, tell=False)
    rehearsals = sorted({phase for phase in of_steps.values() if phase >= 2_000})
    assert len(rehearsals) >= 2
    ends = [max(step for step, phase in of_steps.items() if phase == wanted) for wanted in (*rehearsals, 1_000)]
    for at in (ends[0] - 1, ends[0], ends[1] - 1, ends[-1]):
        folder = tmp_path / str(at)
        with monkeypatch.context() as patch, pytest.raises(Cut):
            cut_at(patch, lambda step, at=at: step == at)
            train.train(told(tables, folder, **chosen), ALONE, tell=False)
        again: list[int] = []
        with monkeypatch.context() as patch:
            cut_at(patch, lambda step, again=again: bool(again.append(step)))
            resumed = train.train(told(tables, folder, **chosen), ALONE, tell=False)
        assert again[:1] == [at + 1][: len(again)] and same(resumed, whole) and resumed.history == whole.history


@pytest.mark.parametrize("share", [0.02, 0.35, 0.5, 0.8, 1.0])
def test_a_training_that_is_cut_goes_on_to_the_same_weights(tables, whole, tmp_path, monkeypatch, share) -> None:
    trained, steps = whole
    at = max(1, round(share * steps))
    with monkeypatch.context() as patch, pytest.raises(Cut):
        cut_at(patch, lambda n: n == at)
        train.train(told(tables, tmp_path, checkpoint_steps=random.Random(at).randint(1, 4)), ALONE, tell=False)
    again: list[int] = []
    cut_at(monkeypatch, lambda n: bool(again.append(n)))
    resumed = train.train(told(tables, tmp_path), ALONE, tell=False)
    assert at - 4 < (again[0] if again else steps + 1) <= at + 1, "what was done before the cut is not done again"
    assert same(resumed, trained)
    assert resumed.history == trained.history
    timed = {"seconds"}
    assert {k: v for k, v in resumed.metrics.items() if k not in timed} == {k: v for k, v in trained.metrics.items() if k not in timed}


def test_a_training_cut_at_every_fifth_step_ends_alike(tables, whole, tmp_path, monkeypatch) -> None:
    trained, steps = whole
    cut_at(monkeypatch, lambda n: n % 5 == 0)
    lives = 0
    while lives < steps:
        lives += 1
        try:
            resumed = train.train(told(tables, tmp_path), ALONE, tell=False)
            break
        except Cut:
            continue
    assert lives > steps // 5
    assert same(resumed, trained)
    assert len(list(tmp_path.glob("step-*"))) == 2


def cut_in_the_middle(tables: Path, folder: Path, steps: int) -> list[Path]:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Cut):
        cut_at(patch, lambda n: n == steps // 2)
        train.train(told(tables, folder), ALONE, tell=False)
    return sorted(folder.glob("step-*"))


@pytest.mark.parametrize("harm", ["flipped bit", "cut short", "no manifest", "a link", "slates", "everything"])
def test_a_damaged_checkpoint_is_passed_over_and_said(tables, whole, tmp_path, capsys, harm) -> None:
    trained, steps = whole
    older, newest = cut_in_the_middle(tables, tmp_path, steps)
    file = newest / "state.safetensors"
    content = file.read_bytes()
    if harm == "flipped bit":
        at = random.Random(0).randrange(len(content))
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    elif harm == "cut short":
        file.write_bytes(content[: len(content) // 2])
    elif harm == "no manifest":
        (newest / "manifest.json").unlink()
    elif harm == "a link":
        file.rename(tmp_path / "elsewhere")
        file.symlink_to(tmp_path / "elsewhere")
    elif harm == "slates":
        slates = next(tmp_path.glob("anchor-*")) / "state.safetensors"
        slates.write_bytes(slates.read_bytes()[:-1] + bytes([slates.read_bytes()[-1] ^ 1]))
    else:
        for path in (older, newest):
            (path / "state.json").write_text("{")
    resumed = train.train(told(tables, tmp_path), ALONE)
    said = capsys.readouterr().out
    assert said.count("passed over a checkpoint") == (2 if harm in ("everything", "slates") else 1)
    assert ("goes on from step" in said) == (harm not in ("everything", "slates"))
    assert same(resumed, trained)


def test_a_huge_header_is_not_read(tmp_path: Path) -> None:
    checkpoints.write(tmp_path, "one", {"x": torch.ones(2)}, {})
    whole = (tmp_path / "one" / "state.safetensors").read_bytes()
    (tmp_path / "one" / "state.safetensors").write_bytes((2**40).to_bytes(8, "little") + whole[8:])
    manifest = (tmp_path / "one" / "manifest.json").read_text()
    for path in ("state.safetensors",):
        before, after = checkpoints._sha256(tmp_path / "one" / path), manifest
        manifest = after.replace(after.split(f'"{path}": "')[1][:64], before)
    (tmp_path / "one" / "manifest.json").write_text(manifest)
    with pytest.raises(DamagedCheckpoint, match="header"):
        checkpoints.read(tmp_path / "one")


def test_what_is_written_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut before each of the calls that reach the disk: only a whole folder has its name."""
    calls = 0
    for last in range(40):
        with monkeypatch.context() as patch:
            done: list[str] = []

            def counted(name: str, original: Callable, done: list[str] = done, last: int = last) -> Callable:
                def call(*arguments, **more):
                    if len(done) == last:
                        raise Cut
                    done.append(name)
                    return original(*arguments, **more)

                return call

            patch.setattr(checkpoints, "save_file", counted("save", checkpoints.save_file))
            patch.setattr(checkpoints, "_flush", counted("flush", checkpoints._flush))
            patch.setattr(Path, "write_text", counted("text", Path.write_text))
            patch.setattr(Path, "rename", counted("rename", Path.rename))
            try:
                checkpoints.write(tmp_path, "step-1", {"x": torch.arange(5)}, {"n": 1})
                calls = last
            except Cut:
                pass
        if (tmp_path / "step-1").exists():
            tensors, about = checkpoints.read(tmp_path / "step-1")
            assert about == {"n": 1} and tensors["x"].tolist() == [0, 1, 2, 3, 4]
        if calls:
            break
        shutil.rmtree(tmp_path / "step-1", ignore_errors=True)
    assert done == ["save", "text", "text", "flush", "flush", "flush", "flush", "rename", "flush"]
