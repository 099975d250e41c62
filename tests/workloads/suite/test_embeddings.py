"""The one bad test: it keeps every embedding it makes, 1,536 floats each, and never stops."""

import os
import time
from array import array
from pathlib import Path

import pytest

VECTORS_PER_BATCH = 170  # about 1 MiB


def test_every_embedding_is_kept(under_a_limit):
    if culprit := os.environ.get("MEMWATCH_CULPRIT_FILE"):
        Path(culprit).write_text(str(os.getpid()))
    index = []
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        index.append(array("f", [0.5]) * (1536 * VECTORS_PER_BATCH))
        time.sleep(0.005)
    pytest.fail("nobody ended this test")
