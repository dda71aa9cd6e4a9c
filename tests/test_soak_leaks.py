"""Every seeded leak is caught by some test. Two whose tests need no Spark are tried every time, the others by ``make soak``."""

import pytest
from leaks import LEAKS, ROOT, caught

SAMPLE = [leak for leak in LEAKS if leak.file.startswith("model/")][:2]


@pytest.mark.parametrize(
    "leak", [pytest.param(leak, id=leak.name, marks=() if leak in SAMPLE else pytest.mark.soak) for leak in LEAKS]
)
def test_the_leak_is_caught(leak):
    found, last = caught(leak)
    assert found, last


def test_every_leak_still_applies():
    for leak in LEAKS:
        assert leak.old in (ROOT / leak.file).read_text(encoding="utf-8"), leak.name
        assert (ROOT / leak.tests.split("::")[0]).exists(), leak.tests
