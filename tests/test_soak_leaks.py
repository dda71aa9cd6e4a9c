"""Every seeded leak is caught by some test."""

import pytest
from leaks import LEAKS, ROOT, caught


@pytest.mark.soak
@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.name)
def test_the_leak_is_caught(leak):
    found, last = caught(leak)
    assert found, last


def test_every_leak_still_applies():
    for leak in LEAKS:
        assert leak.old in (ROOT / leak.file).read_text(encoding="utf-8"), leak.name
        assert (ROOT / leak.tests).exists(), leak.tests
