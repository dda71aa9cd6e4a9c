"""A bundle loads as it was saved, or not at all."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from model_world import START, settings, shop, spec, write_tables
from safetensors.torch import load_file, save_file
from torch import Tensor

from model import train
from model.as_of.item_state import DAY_US
from model.machine.distributed import World
from model.training.trained import Trained
from model.versions import checkpoint
from model.versions.bundle_hash import bundle_hash
from model.versions.checkpoint import CARD, MANIFEST, VOCABULARY, WEIGHTS, CheckpointError


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Path, str]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("checkpoint")
    moments = [START + 30 * DAY_US, START + 37 * DAY_US]
    write_tables(folder, shop(users=10), moments, 7 * DAY_US)
    made = spec(folder, moments, settings(), folder / "bundle")
    result = train.train(made, World(0, 1))
    return result, folder / "bundle", checkpoint.save(result, made)


@pytest.fixture
def copy(trained: tuple, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained[1], tmp_path / "copy"))


def rewrite_manifest(folder: Path) -> None:
    """What someone would do who can change files and knows the layout."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in manifest["files"]}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_a_loaded_model_is_the_saved_one(trained: tuple) -> None:
    result, folder, digest = trained
    bundle = checkpoint.load(folder, digest)
    for before, after in ((result.encoder, bundle.encoder), (result.ranker, bundle.ranker)):
        assert all(torch.equal(v, after.state_dict()[k]) for k, v in before.state_dict().items())
    assert bundle.settings == result.settings
    assert bundle.sales.sum() == result.sales.sum()
    assert digest == bundle_hash(folder)


def test_any_flipped_bit_is_refused(trained: tuple, copy: Path) -> None:
    digest = trained[2]
    rng = random.Random(0)
    for name in (CARD, WEIGHTS, VOCABULARY):
        whole = (copy / name).read_bytes()
        for _ in range(20):
            at = rng.randrange(len(whole))
            (copy / name).write_bytes(whole[:at] + bytes([whole[at] ^ (1 << rng.randrange(8))]) + whole[at + 1 :])
            with pytest.raises(CheckpointError, match="differs from the manifest"):
                checkpoint.load(copy)
            with pytest.raises(CheckpointError):
                checkpoint.load(copy, digest)
        (copy / name).write_bytes(whole)
    checkpoint.load(copy, digest)


def test_an_unfinished_bundle_does_not_load(copy: Path) -> None:
    (copy / MANIFEST).unlink()
    with pytest.raises(CheckpointError, match="unfinished"):
        checkpoint.load(copy)


def test_a_link_in_place_of_a_file_is_refused(copy: Path, tmp_path: Path) -> None:
    (copy / WEIGHTS).rename(tmp_path / "elsewhere")
    (copy / WEIGHTS).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError):
        checkpoint.load(copy)


def test_another_model_than_the_registered_one_is_refused(trained: tuple, copy: Path) -> None:
    card = json.loads((copy / CARD).read_text())
    (copy / CARD).write_text(json.dumps(card | {"trained_as_of_us": 0}))
    rewrite_manifest(copy)
    checkpoint.load(copy)
    with pytest.raises(CheckpointError, match="not the registered model"):
        checkpoint.load(copy, trained[2])


@pytest.mark.parametrize(
    ("change", "said"),
    [({"schema": 99}, "schema 99"), ({"signals": 3}, "train again"), ({"vocabulary_rows": 2}, "weights do not fit")],
)
def test_a_model_of_another_shape_or_schema_is_refused_by_name(copy: Path, change: dict, said: str) -> None:
    card = json.loads((copy / CARD).read_text())
    (copy / CARD).write_text(json.dumps(card | change))
    rewrite_manifest(copy)
    with pytest.raises(CheckpointError, match=said):
        checkpoint.load(copy)


def test_a_huge_header_is_not_read(copy: Path) -> None:
    whole = (copy / WEIGHTS).read_bytes()
    (copy / WEIGHTS).write_bytes((2**40).to_bytes(8, "little") + whole[8:])
    rewrite_manifest(copy)
    with pytest.raises(CheckpointError, match="header of"):
        checkpoint.load(copy)


def payload(canary: Path) -> bytes:
    """A pickle, written by hand, that makes a file when anybody loads it."""
    return f"cos\nsystem\n(S'touch {canary}'\ntR.".encode()


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("model.pkl", "model.pkl is no file of a bundle"),
        ("code/__init__.py", "code, code/__init__.py is no file of a bundle"),
        (WEIGHTS, "header of"),
        (VOCABULARY, "not a vocabulary"),
        (CARD, "not JSON"),
        (MANIFEST, "not JSON"),
    ],
)
def test_code_in_a_bundle_is_refused_and_never_run(copy: Path, tmp_path: Path, place: str, said: str) -> None:
    canary = tmp_path / "canary"
    (copy / place).parent.mkdir(exist_ok=True)
    (copy / place).write_bytes(payload(canary))
    if place != MANIFEST:
        rewrite_manifest(copy)  # the attacker knows the layout: only what a file is can give it away
    with pytest.raises(CheckpointError, match=said):
        checkpoint.load(copy)
    assert not canary.exists()


@pytest.mark.parametrize("name", ["../../outside.json", "more/../model.json", "/etc/hostname"])
def test_a_manifest_that_names_files_elsewhere_is_refused(copy: Path, name: str) -> None:
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["files"][name] = hashlib.sha256(b"").hexdigest()
    (copy / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="names other files"):
        checkpoint.load(copy)


def test_weights_that_are_not_numbers_are_refused(trained: tuple, copy: Path) -> None:
    weights = load_file(copy / WEIGHTS)
    weights["ranker.straight.weight"][0, 0] = float("nan")
    save_file(weights, copy / WEIGHTS)
    rewrite_manifest(copy)
    with pytest.raises(CheckpointError, match="not numbers"):
        checkpoint.load(copy)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("item", lambda a: a + 1_000_000),
        ("item", lambda a: a[:-1]),
        ("item", lambda a: a.float()),
        ("other", lambda a: a - 1_000_000),
        ("other", lambda a: a[:, :-1]),
        ("weight", lambda a: a / 0),
        ("weight", None),
    ],
)
def test_weights_between_items_that_name_none_are_refused(
    copy: Path, name: str, damage: Callable[[Tensor], Tensor] | None
) -> None:
    weights = load_file(copy / WEIGHTS)
    found = weights.pop(f"ease.{name}")
    assert found.numel(), "there is nothing to damage"
    if damage:
        weights[f"ease.{name}"] = damage(found).contiguous()
    save_file(weights, copy / WEIGHTS)
    rewrite_manifest(copy)
    with pytest.raises(CheckpointError, match="no weights between items"):
        checkpoint.load(copy)
