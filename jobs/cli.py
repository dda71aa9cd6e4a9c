"""The command line that every job has: ``--settings``, ``--as-of``, ``--dry-run``, and ``--mode`` where it has one.

Exit codes: 0 ok · 2 usage · 3 data quality · 4 model gate · 75 busy · 1 anything else.
"""

import enum
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from pyspark.sql import SparkSession

from conf.load import SettingsError, load
from conf.settings import Settings
from jobs.errors import JobError, UsageError
from jobs.failures import THROWN, reason
from jobs.progress import console, fail
from jobs.spark.session import kept_log, open_session
from jobs.store.table_io import Warehouse


class Mode(str, enum.Enum):
    """A nightly run speaks for everyone, an hourly one for those who changed."""

    nightly = "nightly"
    hourly = "hourly"


@dataclass(frozen=True)
class Context:
    """What a job's body gets."""

    spark: SparkSession
    settings: Settings
    warehouse: Warehouse
    as_of: datetime
    mode: str
    dry_run: bool
    settings_file: Path | None = None


Body = Callable[[Context], None]
NO_MOMENT = datetime.min.replace(tzinfo=UTC)


def parse_as_of(text: str) -> datetime:
    """An ISO moment with its zone, e.g. 2017-12-01T00:00:00Z, as aware UTC. Raises UsageError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--as-of {text!r} is not an ISO moment; write e.g. 2017-12-01T00:00:00Z") from None
    if moment.tzinfo is None:
        raise UsageError(f"--as-of {text!r} has no time zone; write {text}Z if UTC is meant")
    return moment.astimezone(UTC)


def main(name: str, body: Body, summary: str, modes: bool = False) -> None:
    """Parse the command line, open the session, run the body, and leave with a documented exit code."""

    def command(
        settings: Annotated[Path, typer.Option(help="settings file, e.g. conf/completejourney.yaml")],
        as_of: Annotated[str, typer.Option(help="the moment to speak for, e.g. 2017-12-01T00:00:00Z")],
        dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be done; write nothing")] = False,
        mode: Annotated[Mode, typer.Option(help="everyone, or those who changed", hidden=not modes)] = Mode.nightly,
    ) -> None:
        sys.exit(run(body, name, settings, as_of, mode.value, dry_run))

    command.__doc__ = f"{summary}\n\nExit codes: 0 ok · 2 usage · 3 data quality · 4 model gate · 75 busy"
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    app()


def run(body: Body, name: str, settings_file: Path, as_of: str | None, mode: str, dry_run: bool) -> int:
    """Run a job's body in a session of its own. Returns the exit code; failures are one line on stderr.

    ``as_of`` is None for a job that speaks for no moment; its context has the first moment there is.
    """
    try:
        settings, moment = load(settings_file), NO_MOMENT if as_of is None else parse_as_of(as_of)
        spark = open_session(settings.spark, f"kairos-{settings.domain}-{name}")
    except SettingsError as error:
        return fail(name, UsageError(str(error)))
    except JobError as error:
        return fail(name, error)
    try:
        body(Context(spark, settings, Warehouse(spark, settings), moment, mode, dry_run, settings_file))
        return 0
    except JobError as error:
        return fail(name, error)
    except THROWN as error:
        console.print(traceback.format_exc(), style="dim", markup=False)
        return fail(name, JobError(f"{reason(error)}{kept_log()}"))
    finally:
        with suppress(*THROWN):  # it may be gone
            spark.stop()
