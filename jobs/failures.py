"""What went wrong, in one line for people, of what Spark, the JVM under it or the system throws; and what to do about the usual."""

from __future__ import annotations

from itertools import takewhile

from py4j.protocol import Py4JError, Py4JNetworkError
from pyspark.errors import PySparkException

#: What is thrown when it is not a job's own error: by Spark, by the JVM or for want of it, by the file system.
THROWN = (PySparkException, Py4JError, OSError)
_CAUSE = "Caused by: "
_TRACEBACK = "Traceback (most recent call last)"
_ADVICE = {
    "No space left on device": "free room where the warehouse and Spark's local folder (spark.local.dir) lie, then run it again",
    "OutOfMemoryError": "give the JVM more: spark.driver_memory, or the executors' memory in spark.conf",
}
_GONE = "the JVM is gone; if the system killed it for its memory, lower spark.driver_memory"


def reason(error: BaseException) -> str:
    """The deepest cause that is named, without stack frames; with advice where there is some."""
    told = _deepest(str(error)) or type(error).__name__
    # By type: a store or a registry that refuses a connection says the same words.
    gone = isinstance(error, (Py4JNetworkError, ConnectionRefusedError))
    advice = _GONE if gone else next((words for sign, words in _ADVICE.items() if sign in told), None)
    return f"{told}; {advice}" if advice else told


def _deepest(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("An error occurred while calling")]
    causes = [k for k, line in enumerate(lines) if line.startswith(_CAUSE)]
    said = list(takewhile(lambda line: not line.startswith("\tat "), lines[causes[-1] if causes else 0 :]))
    if not said:
        return ""
    # What failed in a Python worker is the last line of its traceback.
    line = said[-1] if any(_TRACEBACK in line for line in said) else said[0]
    return line.removeprefix(_CAUSE).removeprefix(": ").strip()
