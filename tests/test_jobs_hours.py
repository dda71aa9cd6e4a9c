"""Hours in one session: each when it has come, in order; what is past at once; the first that fails ends them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from jobs.cli import Context
from jobs.errors import BusyError, UsageError
from jobs.hours import hours

START, HOUR = datetime(2026, 1, 31, 1, tzinfo=UTC), timedelta(hours=1)


class Clock:
    def __init__(self, at: datetime):
        self.at, self.slept = at, []

    def now(self) -> datetime:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += timedelta(seconds=seconds)


@pytest.fixture
def ran(monkeypatch) -> list[datetime]:
    done: list[datetime] = []
    monkeypatch.setattr("jobs.hours.hourly", lambda context: done.append(context.as_of))
    return done


def context(dry_run: bool = False) -> Context:
    return Context(None, None, None, START, "hourly", dry_run)


def test_each_hour_runs_when_it_has_come_and_its_events_have_arrived(ran):
    clock = Clock(START + HOUR + timedelta(minutes=20))
    hours(context(), START + 3 * HOUR, HOUR, timedelta(minutes=5), clock.now, clock.sleep)
    assert ran == [START + k * HOUR for k in range(4)]
    assert clock.slept == [45 * 60, 60 * 60]  # the first two are past
    assert clock.at == START + 3 * HOUR + timedelta(minutes=5)


def test_an_hour_that_took_longer_than_an_hour_delays_the_next_and_loses_none(ran, monkeypatch):
    clock = Clock(START)
    monkeypatch.setattr("jobs.hours.hourly", lambda context: (ran.append(context.as_of), clock.sleep(5_400)))
    hours(context(), START + 2 * HOUR, HOUR, timedelta(0), clock.now, clock.sleep)
    assert ran == [START, START + HOUR, START + 2 * HOUR] and set(clock.slept) == {5_400}


def test_the_last_hour_is_not_after_until_and_until_not_before_as_of(ran):
    clock = Clock(START + 9 * HOUR)
    hours(context(), START + 5 * HOUR, 2 * HOUR, HOUR, clock.now, clock.sleep)
    assert ran == [START, START + 2 * HOUR, START + 4 * HOUR]
    with pytest.raises(UsageError, match="swap them"):
        hours(context(), START - HOUR, HOUR, HOUR, clock.now, clock.sleep)


def test_the_first_hour_that_fails_ends_them(ran, monkeypatch):
    def busy(context):
        ran.append(context.as_of)
        raise BusyError("held")

    monkeypatch.setattr("jobs.hours.hourly", busy)
    clock = Clock(START + 9 * HOUR)
    with pytest.raises(BusyError):
        hours(context(), START + 5 * HOUR, HOUR, HOUR, clock.now, clock.sleep)
    assert ran == [START]


def test_a_dry_run_waits_for_nothing(ran):
    clock = Clock(START - 9 * HOUR)
    hours(context(dry_run=True), START + HOUR, HOUR, HOUR, clock.now, clock.sleep)
    assert ran == [START, START + HOUR] and not clock.slept
