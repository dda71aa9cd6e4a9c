"""One SHA-256 for a model bundle: a folder of plain files (safetensors weights and JSON)."""

from __future__ import annotations

import hashlib
from pathlib import Path

#: Version of the bundle's layout and of what its inputs mean; a reader refuses any other.
BUNDLE_SCHEMA = 6


class BundleError(Exception):
    """The folder is not a bundle that may be used; the message says what is wrong with it."""


def bundle_hash(folder: Path) -> str:
    """SHA-256 over the sorted file names (relative, with ``/``) and the contents of a folder.

    Depends on nothing else: not on times, owners or the folder's own name. Each name and each content enters by its own
    digest, so no two different folders spell the same bytes.

    Raises BundleError for a missing or empty folder, and for a link or anything else that is not a plain file or folder:
    a link's target is outside what the hash can vouch for.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise BundleError(f"{folder} is not a folder")
    files = []
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise BundleError(f"{path} is neither a plain file nor a folder; a bundle may not have links")
        if path.is_file():
            files.append((path.relative_to(folder).as_posix(), path))
    if not files:
        raise BundleError(f"{folder} has no files")
    whole = hashlib.sha256()
    for name, path in sorted(files):
        with path.open("rb") as content:
            whole.update(hashlib.sha256(name.encode()).digest())
            whole.update(hashlib.file_digest(content, "sha256").digest())
    return whole.hexdigest()
