"""What PySpark asks of the JVM by name is asked once a process."""

from __future__ import annotations

import pytest
from py4j.protocol import Py4JError
from pyspark.sql import functions as F

from jobs.spark.jvm_names import remember

pytestmark = [pytest.mark.spark]


@pytest.fixture
def asked(spark, monkeypatch) -> list[str]:
    """The reflection commands that are sent to the JVM."""
    client, sent = spark.sparkContext._gateway._gateway_client, []
    send = client.send_command
    monkeypatch.setattr(client, "send_command", lambda command, *a, **k: (sent.append(command), send(command, *a, **k))[1])
    return sent


def lookups(sent: list[str]) -> int:
    return sum(command.startswith("r\n") for command in sent)


def test_a_function_is_looked_up_once(spark, asked):
    F.when(F.col("a") > 1, F.lit(2)).otherwise(F.coalesce("b", F.lit(0)))
    asked.clear()
    F.when(F.col("a") > 1, F.lit(2)).otherwise(F.coalesce("b", F.lit(0)))
    assert asked and lookups(asked) == 0


def test_columns_mean_what_they_meant(spark):
    remember(spark)  # a second session of the process
    row = spark.range(1).select((F.col("id") + F.lit(3)).alias("x"), F.transform(F.array(F.lit(1), F.lit(2)), lambda v: v * 2).alias("y")).first()
    assert (row.x, row.y) == (3, [2, 4])


def test_a_function_that_is_not_there_is_an_error_each_time(spark):
    for _ in range(2):
        with pytest.raises(Py4JError, match="no_such_function"):
            spark.sparkContext._jvm.functions.no_such_function("a")
