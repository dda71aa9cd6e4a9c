"""The JVM's classes that PySpark makes columns with are looked up once, and not anew for each column.

PySpark asks py4j for ``functions`` and for the function in it at every ``F.col``; the JVM then goes through its imports to find the
class. That was two thirds of the time of making a column such as ``F.when(F.col(…) > 1, …)`` (model/LOG.md).
"""

from __future__ import annotations

from typing import Any

from pyspark.sql import SparkSession

_CLASSES = ("functions", "org.apache.spark.sql.functions", "PythonUtils", "PythonSQLUtils")


class _Known:
    """A class of the JVM that keeps the members it was asked for. What it lacks is an error each time, as before."""

    def __init__(self, of: Any):
        self._of = of

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._of, name)
        setattr(self, name, member)
        return member


def remember(session: SparkSession) -> None:
    """From now on, in all sessions of this process: they share one JVM."""
    jvm: Any = session.sparkContext._jvm
    for name in _CLASSES:
        found = getattr(jvm, name)
        if not isinstance(found, _Known):
            setattr(jvm, name, _Known(found))
