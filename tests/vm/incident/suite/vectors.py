"""A vector index as test suites build them: embeddings of 1,536 floats in cells around a few centroids."""

import numpy

DIMENSIONS = 1536
_CELLS = 4


class Model:
    """What stands in for the real one: `batch` embeddings of length 1 at a time."""

    def __init__(self, seed, batch):
        vectors = numpy.random.default_rng(seed).random((batch, DIMENSIONS), dtype=numpy.float32)
        self._vectors = vectors / numpy.linalg.norm(vectors, axis=1, keepdims=True)

    def embeddings(self, number):
        return numpy.roll(self._vectors, number, axis=1)


class Index:
    """Keeps every vector it is given, by the centroid that is nearest."""

    def __init__(self):
        self._centroids = Model(seed=1, batch=_CELLS).embeddings(0)
        self._cells = [[] for _ in range(_CELLS)]

    def add(self, vectors):
        nearest = (vectors @ self._centroids.T).argmax(axis=1)
        for number, cell in enumerate(self._cells):
            cell.append(vectors[nearest == number])

    def nearest(self, query):
        """The vector with the smallest angle to `query`, in its cell."""
        cell = numpy.concatenate(self._cells[(self._centroids @ query).argmax()])
        return cell[(cell @ query).argmax()]

    def __len__(self):
        return sum(len(block) for cell in self._cells for block in cell)
