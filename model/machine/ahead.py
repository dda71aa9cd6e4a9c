"""Batches made by a thread while the ones before are computed; tensors among them in pinned memory."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

_Made = TypeVar("_Made")
_AHEAD = 2


def ahead(source: Iterator[_Made], most: int = _AHEAD) -> Generator[_Made, None, None]:
    """The same, up to ``most`` made before they are asked for. An error of the source is raised where it would have been met.

    Close it when it is not read to its end: this waits for the thread.
    """
    made: queue.Queue[tuple[bool, object]] = queue.Queue(most)
    given_up = threading.Event()

    def put(what: tuple[bool, object]) -> None:
        while not given_up.is_set():
            try:
                made.put(what, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for one in source:
                put((True, one))
                if given_up.is_set():
                    return
            put((False, None))
        except BaseException as error:
            put((False, error))

    maker = threading.Thread(target=work, name="batches", daemon=True)
    maker.start()
    try:
        while True:
            more, what = made.get()
            if isinstance(what, BaseException) and not more:
                raise what
            if not more:
                return
            yield what  # type: ignore[misc]
    finally:
        given_up.set()
        maker.join()  # one that still pins memory when Python ends takes the process down
