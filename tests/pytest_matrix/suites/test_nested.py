"""Tests of a plugin, as its authors write them: pytest runs in pytest, in this process and in another."""

import pytest

pytest_plugins = ["pytester"]

INNER = """
def test_passes(): pass
def test_fails(): assert 0
"""


@pytest.mark.parametrize("options", [[], ["-n", "1"]])
@pytest.mark.parametrize("how", ["runpytest_inprocess", "runpytest_subprocess"])
def test_of_a_plugin(pytester, how, options):
    pytester.makepyfile(INNER)
    result = getattr(pytester, how)("-p", "no:cacheprovider", *options)
    result.assert_outcomes(passed=1, failed=1)
    assert "memwatch" not in result.stdout.str() + result.stderr.str()


def test_of_items_and_modules(pytester):
    items, recorder = pytester.inline_genitems(pytester.makepyfile(INNER))
    assert len(items) == 2
    pytester.inline_run().assertoutcome(passed=1, failed=1)
