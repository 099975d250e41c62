"""Tests that need the plugins that people use the most."""

import asyncio
import time

import hypothesis
import hypothesis.strategies as some
import pytest

TRIES = []


@pytest.mark.asyncio
async def test_of_asyncio():
    await asyncio.sleep(0.01)


@pytest.mark.asyncio
async def test_of_asyncio_fails():
    await asyncio.sleep(0.01)
    assert False


@pytest.mark.flaky(reruns=2)
def test_of_reruns():
    TRIES.append(1)
    assert len(TRIES) == 3


@pytest.mark.flaky(reruns=1)
def test_of_reruns_fails():
    assert False


@hypothesis.settings(derandomize=True, database=None, max_examples=30, deadline=None)
@hypothesis.given(some.lists(some.integers()))
def test_of_hypothesis(numbers):
    assert sorted(numbers) == sorted(numbers[::-1])


@hypothesis.settings(derandomize=True, database=None, max_examples=30, deadline=None)
@hypothesis.given(some.integers())
def test_of_hypothesis_fails(number):
    assert number < 10


@pytest.mark.timeout(1)
def test_of_a_timeout():
    time.sleep(30)


@pytest.mark.timeout(1, method="signal", func_only=True)
def test_of_a_timeout_of_the_call_alone():
    while True:
        pass


class TestOfSubtests:
    def test_it(self, request):
        assert request.node.name == "test_it"
