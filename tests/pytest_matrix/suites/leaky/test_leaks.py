"""A test of each way to leak, among innocents. Only those leak that LEAKS names; all give up by themselves."""

import ctypes
import os
import subprocess
import sys
import threading
import time

import pytest

LEAKS = os.environ.get("LEAKS", "").split()
STEP = 2 << 20  # every 10 ms: 200 MiB/s
LIBC = ctypes.CDLL(None)
LIBC.malloc.restype = ctypes.c_void_p
LIBC.malloc.argtypes = [ctypes.c_size_t]
LIBC.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]


def in_python(keep):
    keep.append(bytearray(STEP))


def in_c(_keep):
    LIBC.memset(LIBC.malloc(STEP), 1, STEP)


def leak(step=in_python, keep=None):
    keep = [] if keep is None else keep
    until = time.monotonic() + 20
    while time.monotonic() < until:
        step(keep)
        time.sleep(0.01)


def innocents():
    return pytest.mark.parametrize("number", range(2))


@innocents()
def test_before(number):
    time.sleep(0.01)


def test_python():
    if "python" in LEAKS:
        leak()


@innocents()
def test_after_python(number):
    time.sleep(0.01)


def test_c():
    if "c" in LEAKS:
        leak(in_c)


@innocents()
def test_after_c(number):
    time.sleep(0.01)


def test_swallows():
    if "swallows" in LEAKS:
        keep = []
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                leak(keep=keep)
            except BaseException:
                pass


@innocents()
def test_after_swallows(number):
    time.sleep(0.01)


def test_child():
    if "child" in LEAKS:
        code = "import sys; sys.path.insert(0, %r); import test_leaks; test_leaks.leak()" % os.path.dirname(__file__)
        assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@innocents()
def test_after_child(number):
    time.sleep(0.01)


def test_thread():
    if "thread" in LEAKS:
        thread = threading.Thread(target=leak, daemon=True)
        thread.start()
        thread.join()


@innocents()
def test_after_thread(number):
    time.sleep(0.01)


@pytest.fixture
def leaky():
    if "fixture" in LEAKS:
        leak()


def test_fixture(leaky):
    time.sleep(0.01)
