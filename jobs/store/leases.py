"""One writer at a time: a lock file for each table, and bounded patience with writers that hold no lock of ours."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout
from pyspark.errors import PySparkException
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from conf.settings import Settings
from features.contracts import Table
from jobs.errors import BusyError, UsageError

#: Another engine may write between our reading and our commit; what was meant is then made anew, so many times in all.
ATTEMPTS = 4
_WAIT = wait_exponential(multiplier=0.5, max=8)
_Made = TypeVar("_Made")


@contextlib.contextmanager
def lease(settings: Settings, tables: Sequence[Table], seconds: float = 0) -> Iterator[None]:
    """Hold the tables while the block runs. Raises BusyError when another process has one for longer than ``seconds``.

    Delta on file:// does not protect two JVMs from each other; a lock file does, on one machine.
    """
    with contextlib.ExitStack() as stack:
        for table in sorted(tables, key=lambda t: t.name):
            lock = FileLock(_folder(settings) / f"{table.name}.lock", is_singleton=True)
            try:
                stack.enter_context(lock.acquire(timeout=seconds))
            except Timeout:
                raise BusyError(
                    f"table {table.name} is being written by another run ({lock.lock_file}); try again later"
                ) from None
        yield


def retried(table: Table, make: Callable[[], _Made]) -> _Made:
    """What ``make`` gives. It is called again when Delta refuses its commit because of another one, ATTEMPTS times at most.

    ``make`` must read anew what it writes from. Raises BusyError when every attempt was refused.
    """
    attempts = Retrying(stop=stop_after_attempt(ATTEMPTS), wait=_WAIT, retry=retry_if_exception(_is_conflict), reraise=True)
    try:
        return attempts(make)
    except PySparkException as error:
        if not _is_conflict(error):
            raise
        told = str(error).splitlines()[0]
        raise BusyError(f"table {table.name} was changed by others during each of {ATTEMPTS} attempts ({told}); try again later") from error


def _is_conflict(error: BaseException) -> bool:
    # Delta's own class is not asked for: only jobs/store/table_io.py imports Delta, and each conflict is named in this way.
    return isinstance(error, PySparkException) and any(
        kind.__name__ == "DeltaConcurrentModificationException" for kind in type(error).__mro__
    )


def _folder(settings: Settings) -> Path:
    root = settings.warehouse
    if "://" in root or settings.catalog:
        key = hashlib.sha256(f"{root} {settings.catalog}".encode()).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"kairos-locks-{key}"
    else:
        folder = Path(root).absolute() / ".locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make the lock folder {folder}: {error.strerror}; check warehouse in the settings"
        ) from error
    return folder
