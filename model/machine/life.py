"""Signs of life: a trainer that is stopped, or whose machine is gone, is known by its silence, and one without a supervisor ends.

A collective waits long before it gives up, and must: another process may read or write for minutes. A thread of each process
counts up in a file instead, whatever the others wait for; only a process that does not run at all falls silent.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

_EVERY = 1.0
_SIGN, _REFUSED = "rank-", "refused"


def live(folder: Path, supervisor: int | None = None) -> None:
    """Give signs from now on, and end this process once ``supervisor`` is gone."""
    folder.mkdir(parents=True, exist_ok=True)
    sign = folder / f"{_SIGN}{os.environ.get('RANK', '0')}"

    def work() -> None:
        number = 0
        while True:
            number += 1
            beside = sign.with_suffix(".part")
            beside.write_text(f"{socket.gethostname()} {os.getpid()} {number}", encoding="utf-8")
            os.replace(beside, sign)
            if supervisor is not None and not _runs(supervisor):
                os._exit(1)  # nobody would take what it makes, and the next one shall not meet it
            time.sleep(_EVERY)

    threading.Thread(target=work, name="signs of life", daemon=True).start()


def refuse(folder: Path) -> None:
    """Say that another try would end alike."""
    (folder / _REFUSED).touch()


def refused(folder: Path) -> bool:
    """Whether a process said so."""
    return (folder / _REFUSED).exists()


@dataclass
class Watch:
    """The signs in ``folder``, asked for again and again; ``silence``: seconds without a new one that are too many."""

    folder: Path
    silence: float
    _seen: dict[str, tuple[str, float]] = field(default_factory=dict)

    def silent(self) -> str | None:
        """The rank that gave no sign for too long; None while all live."""
        now = time.monotonic()
        for path in self.folder.glob(f"{_SIGN}[0-9]*"):
            if path.suffix:
                continue
            said = path.read_text(encoding="utf-8")
            if self._seen.get(path.name, ("", 0.0))[0] != said:
                self._seen[path.name] = said, now
        late = [name for name, (_, since) in self._seen.items() if now - since > self.silence]
        return min(late, default=None)

    def processes(self) -> dict[str, int]:
        """Process of each rank that runs on this machine."""
        parts = {name: said.split() for name, (said, _) in self._seen.items()}
        return {name: int(part[1]) for name, part in parts.items() if part[0] == socket.gethostname()}


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
