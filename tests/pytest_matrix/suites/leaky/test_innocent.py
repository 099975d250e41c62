"""Tests that take a little memory and time, and give the memory back."""

import time

import pytest


class TestInnocent:
    @pytest.mark.parametrize("number", range(30))
    def test_it(self, number):
        held = bytearray(1 << 20)
        time.sleep(0.003)
        assert len(held) == 1 << 20
