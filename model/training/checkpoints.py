"""Checkpoints of a training that runs: weights, optimizers and place, so that a killed one goes on where it was.

Each is a folder, written beside, flushed to disk, its manifest with the SHA-256 of every file last, then renamed: it is there
whole or not at all. The newest valid one is taken; a damaged one is passed over, and that is said. What never changes again
(the slates of an anchor) is written once, and checkpoints name it by its hash. Weights are safetensors, the rest JSON.
Only rank 0 writes: all processes have the same state, so it may be read by any number of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.machine.distributed import World
from model.training.optimizers import Optimizers
from model.training.progress import Progress

_MANIFEST, _TENSORS, _ABOUT = "manifest.json", "state.safetensors", "state.json"
_STEP, _ANCHOR = "step-", "anchor-"
_SCHEMA = 3
_MOST_HEADER = 10 * 2**20

Saved = tuple[dict[str, Tensor], dict[str, Any]]


class DamagedCheckpoint(Exception):
    """A folder that was not finished, was changed, or is of another schema."""


def write(parent: Path, name: str, tensors: dict[str, Tensor], about: dict[str, Any]) -> str:
    """Write a folder that is there whole or not at all; returns the SHA-256 of its manifest."""
    beside = parent / f".{name}.part"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, beside / _TENSORS)
    (beside / _ABOUT).write_text(json.dumps(about), encoding="utf-8")
    files = {part: _sha256(beside / part) for part in (_TENSORS, _ABOUT)}
    (beside / _MANIFEST).write_text(json.dumps({"schema": _SCHEMA, "files": files}, sort_keys=True), encoding="utf-8")
    for part in (_TENSORS, _ABOUT, _MANIFEST):
        _flush(beside / part)
    _flush(beside)
    shutil.rmtree(parent / name, ignore_errors=True)
    beside.rename(parent / name)
    _flush(parent)
    return _sha256(parent / name / _MANIFEST)


def read(folder: Path, sha256: str | None = None) -> Saved:
    """Read what ``write`` wrote. Raises DamagedCheckpoint where it is not that, to the bit."""
    try:
        manifest = json.loads(_plain(folder / _MANIFEST).read_bytes())
        if sha256 is not None and _sha256(folder / _MANIFEST) != sha256:
            raise DamagedCheckpoint(f"{folder} is not the one that is meant")
        if manifest.get("schema") != _SCHEMA:
            raise DamagedCheckpoint(f"{folder} has schema {manifest.get('schema')!r}, read is {_SCHEMA}")
        for part in (_TENSORS, _ABOUT):
            if _sha256(_plain(folder / part)) != manifest["files"][part]:
                raise DamagedCheckpoint(f"{folder / part}: SHA-256 differs from the manifest's")
        with (folder / _TENSORS).open("rb") as file:
            if int.from_bytes(file.read(8), "little") > _MOST_HEADER:
                raise DamagedCheckpoint(f"{folder / _TENSORS}: a header of more than {_MOST_HEADER} bytes")
        return load_file(folder / _TENSORS), json.loads((folder / _ABOUT).read_bytes())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpoint(f"{folder}: {error}") from error


@dataclass
class Checkpoints:
    """The checkpoints of one training in ``folder``. ``every``: seconds between two; ``steps``: and at most so many steps (0: any)."""

    folder: Path
    world: World
    every: float
    steps: int
    kept: int
    tell: Callable[[str], None]
    modules: dict[str, torch.nn.Module] = field(default_factory=dict)
    optimizers: dict[str, Optimizers] = field(default_factory=dict)
    anchors: dict[int, Callable[[], Saved] | str] = field(default_factory=dict)
    """Slates by anchor: how to make what is stored, then the name of the folder where it lies."""
    _last: float = field(default_factory=time.perf_counter)
    _last_step: int = 0
    _found: Saved | None = None
    _stale: list[Path] = field(default_factory=list)
    """Newer than the one that was taken: damaged, and removed when the next is there."""

    def resume(self) -> Progress:
        """Where the newest valid checkpoint stands; the beginning where there is none."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self.folder.glob(f"{_STEP}*"), reverse=True):
            try:
                tensors, about = read(path)
                for name, sha256 in about["anchors"].values():
                    read(self.folder / name, sha256)
            except DamagedCheckpoint as error:
                self.tell(f"passed over a checkpoint: {error}")
                self._stale.append(path)
                continue
            self._found = tensors, about
            self.anchors = {int(k): " ".join(named) for k, named in about["anchors"].items()}
            progress = Progress.of(about["progress"])
            self._last_step = progress.steps
            self.tell(f"goes on from step {progress.steps:,} of an earlier process ({path.name})")
            return progress
        return Progress()

    def add(self, name: str, module: torch.nn.Module, optimizers: Optimizers) -> None:
        """Keep these from now on; where an earlier process left them, they go on from there."""
        self.modules[name], self.optimizers[name] = module, optimizers
        if self._found is None:
            return
        tensors, about = self._found
        weights, state = (_taken(tensors, f"{name}{part}/") for part in ("", ".optimizer"))
        if name in about["networks"]:
            module.load_state_dict(weights)
            optimizers.load(state, about["networks"][name])

    def drop(self, name: str) -> None:
        """Keep these no longer."""
        del self.modules[name], self.optimizers[name]

    def slates(self, anchor: int) -> Saved | None:
        """The slates of an anchor, if an earlier process made them."""
        named = self.anchors.get(anchor)
        if not isinstance(named, str):
            return None
        name, sha256 = named.split(" ")
        return read(self.folder / name, sha256)

    def after_step(self, progress: Progress) -> None:
        """Write one if it is time."""
        now = time.perf_counter()
        due = now - self._last >= self.every or 0 < self.steps <= progress.steps - self._last_step
        if due and self.world.first:
            self._save(progress)
            self._last, self._last_step = time.perf_counter(), progress.steps

    def _save(self, progress: Progress) -> None:
        for anchor, made in self.anchors.items():
            if not isinstance(made, str):
                tensors, about = made()
                name = f"{_ANCHOR}{anchor}-{progress.steps}"
                self.anchors[anchor] = f"{name} {write(self.folder, name, tensors, about)}"
        tensors, networks = {}, {}
        for name, module in self.modules.items():
            tensors |= {f"{name}/{k}": v for k, v in module.state_dict().items()}
            found, networks[name] = self.optimizers[name].state()
            tensors |= {f"{name}.optimizer/{k}": v for k, v in found.items()}
        anchors = {str(k): str(v).split(" ") for k, v in self.anchors.items()}
        write(self.folder, f"{_STEP}{progress.steps:012d}", tensors, {"progress": progress.tree(), "networks": networks, "anchors": anchors})
        for path in self._stale:
            shutil.rmtree(path, ignore_errors=True)
        self._stale = []
        self._prune()

    def _prune(self) -> None:
        """Keep the newest, and the slates that any of them names."""
        newest = sorted(self.folder.glob(f"{_STEP}*"), reverse=True)
        for path in newest[self.kept :]:
            shutil.rmtree(path, ignore_errors=True)
        named: set[str] = set()
        for path in newest[: self.kept]:
            try:
                named |= {name for name, _ in json.loads((path / _ABOUT).read_bytes())["anchors"].values()}
            except (OSError, ValueError, KeyError):
                continue
        for path in self.folder.glob(f"{_ANCHOR}*"):
            if path.name not in named:
                shutil.rmtree(path, ignore_errors=True)


def _taken(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those with the prefix, without it, and no longer among the others."""
    return {k.removeprefix(prefix): tensors.pop(k) for k in [k for k in tensors if k.startswith(prefix)]}


def _plain(path: Path) -> Path:
    if path.is_symlink() or not path.is_file():
        raise DamagedCheckpoint(f"{path}: missing, a link, or not a plain file")
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    at = os.open(path, os.O_RDONLY)
    try:
        os.fsync(at)
    finally:
        os.close(at)
