"""One hash for a folder of plain files: of names and contents, and of nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from model_world import small_bundle as bundle

from model.versions.bundle_hash import BundleError, bundle_hash


def test_the_hash_is_of_names_and_contents_only(tmp_path: Path) -> None:
    one, two = bundle(tmp_path / "one"), bundle(tmp_path / "two")
    os.utime(two / "manifest.json", (1, 1))
    assert bundle_hash(one) == bundle_hash(two)
    assert len(bundle_hash(one)) == 64


def test_the_hash_sees_a_changed_byte_a_new_name_and_a_moved_boundary(tmp_path: Path) -> None:
    known = {bundle_hash(bundle(tmp_path / "a")), bundle_hash(bundle(tmp_path / "b", b"weightz"))}
    renamed = bundle(tmp_path / "c")
    (renamed / "manifest.json").rename(renamed / "manifest2.json")
    moved = bundle(tmp_path / "d")
    (moved / "manifest.json").rename(moved / "networks" / "manifest.json")
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "ab").write_text("c")
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a").write_text("bc")
    known |= {bundle_hash(folder) for folder in (renamed, moved, tmp_path / "e", tmp_path / "f")}
    assert len(known) == 6


@pytest.mark.parametrize("kind", ["file link", "folder link", "pipe", "empty", "missing"])
def test_only_plain_files_make_a_bundle(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "bundle"
    if kind == "empty":
        folder.mkdir()
    elif kind != "missing":
        bundle(folder)
    if kind == "file link":
        (folder / "more.json").symlink_to(folder / "manifest.json")
    if kind == "folder link":
        (folder / "more").symlink_to(tmp_path, target_is_directory=True)
    if kind == "pipe":
        os.mkfifo(folder / "more")
    with pytest.raises(BundleError):
        bundle_hash(folder)
