"""The good neighbours: small tests that share a run with the hog and must all still pass."""

import json
import time

import pytest


@pytest.mark.parametrize("size", range(40))
def test_payload_survives_a_round_trip(size):
    payload = {"id": size, "tags": [f"tag-{n}" for n in range(size * 20)], "text": "x" * size * 100}
    assert json.loads(json.dumps(payload)) == payload
    time.sleep(0.05)


def test_vectors_are_ranked_by_distance():
    vectors = [[float(n % 7), float(n % 11)] for n in range(5000)]
    ranked = sorted(vectors, key=lambda v: v[0] ** 2 + v[1] ** 2)
    assert ranked[0] == [0.0, 0.0]
