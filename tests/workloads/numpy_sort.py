"""Innocent: numpy sorts an array of `--bytes`, again and again, for `--seconds`."""

import argparse
import time

import numpy

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--bytes", type=int, required=True)
parser.add_argument("--seconds", type=float, default=10)
arguments = parser.parse_args()

deadline = time.monotonic() + arguments.seconds
random = numpy.random.default_rng(seed=1)
numbers = numpy.empty(arguments.bytes // 8)
while time.monotonic() < deadline:
    random.random(out=numbers)
    numbers.sort()
