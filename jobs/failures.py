"""What went wrong, in one line for people, of what Spark, the JVM under it or the system throws; and what to do about the usual."""

from __future__ import annotations

import errno

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException

#: What is thrown when it is not a job's own error: by Spark, by the JVM or for want of it, by the file system.
THROWN = (PySparkException, Py4JError, OSError)
_CAUSE = "Caused by: "
_ADVICE = (
    (("No space left on device", f"[Errno {errno.ENOSPC}]"), "free room where the warehouse and Spark's local folder (spark.local.dir) lie, then run it again"),
    (("OutOfMemoryError", "Java heap space"), "give the JVM more: spark.driver_memory, or the executors' memory in spark.conf"),
    (("Answer from Java side is empty", "Error while sending or receiving", "Connection refused"), "the JVM is gone; if the system killed it for its memory, lower spark.driver_memory"),
)


def reason(error: BaseException) -> str:
    """The deepest cause that is named, without stack frames; with advice where there is some."""
    told = _deepest(str(error)) or type(error).__name__
    advice = next((words for signs, words in _ADVICE if any(sign in told for sign in signs)), None)
    return f"{told}; {advice}" if advice else told


def _deepest(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    causes = [line.removeprefix(_CAUSE) for line in lines if line.startswith(_CAUSE)]
    if causes:
        return causes[-1]
    said = [line for line in lines if not line.startswith("at ")]
    if any(line.startswith("Traceback (most recent call last)") for line in said):  # of a Python worker: its error comes last
        return said[-1]
    # "An error occurred while calling o14.save." says nothing; the next line names the exception.
    return next((line.removeprefix(": ") for line in said if not line.startswith("An error occurred while calling")), "")
