"""How long training may take. Only a limit that is passed changes anything, and then the history says so."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from model.machine.distributed import World


@dataclass
class Budget:
    """Seconds since it was made; all processes agree on whether they are spent."""

    seconds: float
    world: World
    begun: float = field(default_factory=time.perf_counter)
    stopped: bool = False

    def used(self) -> float:
        """Seconds since the start, in this process."""
        return time.perf_counter() - self.begun

    def spent(self) -> bool:
        """Asked after each epoch: true once any process has passed the limit. Every process must ask alike."""
        self.stopped = self.stopped or self.world.add(float(self.used() > self.seconds))[0] > 0
        return self.stopped

    def go_on(self, seconds: float, stopped: bool) -> None:
        """Count what earlier processes of the same training have used."""
        self.begun -= seconds
        self.stopped = stopped
