"""What a person sees while jobs run: a spinner with the current step on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from datetime import datetime

from pyspark.sql import SparkSession
from rich.console import Console

from jobs.errors import JobError

#: Lines in a log file need no wrapping to the width of a terminal that is not there.
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)


def start(job: str, mode: str | None, as_of: datetime) -> None:
    """Announce a job."""
    name = f"{job} ({mode})" if mode else job
    console.print(f"[bold]{name}[/bold] as of {as_of:%Y-%m-%d %H:%M} UTC")


def finish(job: str, seconds: float, counts: dict[str, int], message: str | None) -> None:
    """Say how a job ended, with its row counts."""
    told = ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in counts.items())
    note = f"  ({message})" if message else ""
    console.print(f"  [green]done[/green] {job} in {seconds:.1f} s" + (f": {told}" if told else "") + note)


@contextlib.contextmanager
def step(spark: SparkSession, what: str) -> Iterator[None]:
    """Name a step: on the terminal, and as the description of the Spark jobs it starts."""
    spark.sparkContext.setJobDescription(what)
    try:
        if console.is_terminal:
            with console.status(f"  {what} …"):
                yield
        else:
            console.print(f"  {what} …")
            yield
    finally:
        spark.sparkContext.setJobDescription(None)  # type: ignore[arg-type]


def fail(name: str, error: JobError) -> int:
    """Print one line on stderr and return the exit code."""
    print(f"error in {name}: {error}", file=sys.stderr)  # noqa: T201 - plain, also where rich would wrap
    return error.exit_code
