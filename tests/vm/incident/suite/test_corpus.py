"""The bad one: it indexes a whole corpus, and keeps every vector."""

import os
from pathlib import Path

from vectors import Index, Model

BATCH = 1000
# More than 2 GiB, and not much more than that: where there is room it ends by itself.
BATCHES = 400


def test_the_whole_corpus_is_indexed():
    Path(os.environ["MEMWATCH_CULPRIT_FILE"]).write_text(str(os.getpid()))
    model, index = Model(seed=0, batch=BATCH), Index()
    for number in range(BATCHES):
        index.add(model.embeddings(number))
    assert len(index) == BATCHES * BATCH
