"""The good neighbours: small indexes and large payloads, each test soon over."""

import json

import pytest

from vectors import Index, Model

# What mocks answer with, kept for the whole run as fixtures of a module are.
PAYLOADS = []


@pytest.mark.parametrize("seed", range(12))
def test_a_vector_finds_itself(seed):
    index = Index()
    vectors = Model(seed, batch=200).embeddings(0)
    index.add(vectors)
    assert (index.nearest(vectors[seed]) == vectors[seed]).all()


@pytest.mark.parametrize("number", range(12))
def test_a_payload_survives_a_round_trip(number):
    payload = {"id": number, "text": "x" * (4 << 20), "tags": [f"tag-{n}" for n in range(200)]}
    PAYLOADS.append(json.loads(json.dumps(payload)))
    assert PAYLOADS[-1] == payload
