"""A test of every outcome and kind, for what pytest prints of them."""

import os
import sys
import threading
import unittest

import pytest


def test_passes():
    pass


def test_forks():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def test_fails():
    value = {"a": 1}
    assert value == {"a": 2}


@pytest.mark.skip(reason="not today")
def test_is_skipped():
    pass


@pytest.mark.xfail
def test_is_expected_to_fail():
    assert False


@pytest.mark.xfail
def test_passes_unexpectedly():
    pass


@pytest.fixture
def broken():
    raise ValueError("no")


def test_of_a_broken_fixture(broken):
    pass


@pytest.fixture
def broken_at_the_end():
    yield
    raise ValueError("late")


def test_of_a_fixture_broken_at_the_end(broken_at_the_end):
    pass


@pytest.mark.parametrize("name", ["a", "\u00e4\u00df", "a/b::c", "x" * 300, "with space", "[]"])
def test_of_many_names(name):
    assert name


class TestOfAClass:
    def test_method(self, tmp_path, capsys, monkeypatch):
        print("to be captured")
        assert capsys.readouterr().out == "to be captured\n"


class OfUnittest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.ready = True

    def test_passes(self):
        self.assertTrue(self.ready)

    def test_fails(self):
        self.assertEqual(1, 2)

    @unittest.skip("not today")
    def test_is_skipped(self):
        pass

    def test_of_subtests(self):
        for i in range(3):
            with self.subTest(i=i):
                self.assertLess(i, 5)


def test_prints_when_it_fails():
    print("said on the way out")
    print("said on the way err", file=sys.stderr)
    raise RuntimeError("over")


def test_of_a_thread():
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()


def test_ends_with_system_exit():
    raise SystemExit(3)
