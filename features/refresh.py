"""What an hour asks of the log that its night has counted already."""

from __future__ import annotations

from datetime import datetime, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from features.item_sales import MONTH_US
from features.windows import between

_PAIR = [c.USER_ID, c.ITEM_ID]


def leaving_month(before: DataFrame, night: datetime, as_of: datetime) -> DataFrame:
    """(user, item) of the events ``before`` that the last 28 days held at the night and do not hold at as_of any more."""
    month = timedelta(microseconds=MONTH_US)
    return between(before, night - month, as_of - month).select(*_PAIR).distinct()


def asked_histories(before: DataFrame, asked: DataFrame, leaving: DataFrame, few: bool = True) -> DataFrame:
    """The events ``before`` of every user who is ``asked``, and those of the pairs that are ``leaving``: one pass over the log.

    Users come first, because a look at one short id spares most rows the second. ``few``: the users fit into each executor.
    """
    acted = asked.select(c.USER_ID, F.lit(True).alias("acted")).unionByName(leaving.select(c.USER_ID, F.lit(False).alias("acted")))
    users = acted.groupBy(c.USER_ID).agg(F.bool_or("acted").alias("acted"))
    pairs = leaving.withColumn("leaves", F.lit(True))
    of_users = before.join(F.broadcast(users) if few else users, on=c.USER_ID, how="inner")
    told = of_users.join(F.broadcast(pairs), on=_PAIR, how="left").where("acted OR leaves")
    return told.select(*before.columns)
